//! The working memory of argon2id. All hashes together use no more than a fixed amount. A hash that
//! needs more is computed alone. Memory that is not used for a while is given back to the system.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use argon2::Block;

/// The working memory of all hashing threads.
pub(super) struct WorkingMemory {
    /// Held by the thread that waits for memory, so that no other thread takes memory before it.
    /// Otherwise smaller hashes could always take the memory that becomes free, and a hash that
    /// needs much memory would wait until no smaller hash runs.
    turn: Mutex<()>,
    state: Mutex<State>,
    /// Signalled when a hash ends.
    freed: Condvar,
    /// Maximum number of blocks of all hashes.
    max_blocks: usize,
    /// Number of blocks of a hash with the configured parameters. Only buffers of this size are
    /// kept.
    usual_blocks: usize,
}

#[derive(Default)]
struct State {
    /// Number of blocks of the hashes that are being computed.
    lent_blocks: usize,
    /// Buffers of `usual_blocks` that no hash uses.
    unused: Vec<Vec<Block>>,
}

/// The memory of one hash. Dropping it lets another hash use the memory.
pub(super) struct HashMemory<'a> {
    memory: &'a WorkingMemory,
    blocks: Vec<Block>,
}

impl WorkingMemory {
    /// Working memory of at most `max_bytes`, for hashes that usually need `usual_blocks`.
    pub(super) fn new(max_bytes: u64, usual_blocks: usize) -> Self {
        let max_blocks = usize::try_from(max_bytes / Block::SIZE as u64).unwrap_or(usize::MAX);
        Self {
            turn: Mutex::default(),
            state: Mutex::default(),
            freed: Condvar::new(),
            max_blocks,
            usual_blocks,
        }
    }

    /// Waits until this number of blocks is free, and takes them. A hash that needs more than the
    /// maximum is computed alone.
    pub(super) fn take(&self, block_count: usize) -> HashMemory<'_> {
        let unused_buffer = {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.lock();
            while state.lent_blocks > 0 && state.lent_blocks + block_count > self.max_blocks {
                state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.lent_blocks += block_count;
            let unused_buffer =
                if block_count == self.usual_blocks { state.unused.pop() } else { None };
            // Keep only as many unused buffers as fit into the memory that is not lent.
            let free_blocks = self.max_blocks.saturating_sub(state.lent_blocks);
            state.unused.truncate(free_blocks / self.usual_blocks.max(1));
            unused_buffer
        };
        let blocks = unused_buffer.unwrap_or_else(|| vec![Block::default(); block_count]);
        HashMemory { memory: self, blocks }
    }

    /// Number of bytes that are allocated.
    pub(super) fn allocated_bytes(&self) -> usize {
        let state = self.lock();
        (state.lent_blocks + state.unused.len() * self.usual_blocks) * Block::SIZE
    }

    /// Whether buffers are kept that no hash uses.
    pub(super) fn has_unused(&self) -> bool {
        !self.lock().unused.is_empty()
    }

    /// Gives the buffers that no hash uses back to the system.
    pub(super) fn free_unused(&self) {
        // The lock is released before the memory is freed.
        let unused = std::mem::take(&mut self.lock().unused);
        drop(unused);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsMut<[Block]> for HashMemory<'_> {
    fn as_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }
}

impl Drop for HashMemory<'_> {
    fn drop(&mut self) {
        let blocks = std::mem::take(&mut self.blocks);
        let length = blocks.len();
        let is_usual = length == self.memory.usual_blocks;
        if is_usual {
            let mut state = self.memory.lock();
            state.lent_blocks -= length;
            state.unused.push(blocks);
        } else {
            drop(blocks);
            self.memory.lock().lent_blocks -= length;
        }
        self.memory.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    /// N41: hashes together use no more than the maximum, and a large hash gets its turn.
    #[test]
    fn hashes_together_stay_below_the_maximum() {
        // The maximum is 100 blocks. A usual hash needs 10 blocks, and each fourth thread's hash
        // 70.
        let memory = WorkingMemory::new(100 * Block::SIZE as u64, 10);
        let (used, max_used) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..16 {
                let (memory, used, max_used) = (&memory, &used, &max_used);
                let blocks = if number % 4 == 0 { 70 } else { 10 };
                scope.spawn(move || {
                    for _ in 0..100 {
                        let mut taken = memory.take(blocks);
                        assert_eq!(taken.as_mut().len(), blocks);
                        let used_now = used.fetch_add(blocks, Ordering::SeqCst) + blocks;
                        max_used.fetch_max(used_now, Ordering::SeqCst);
                        assert!(memory.allocated_bytes() <= 100 * Block::SIZE);
                        thread::yield_now();
                        used.fetch_sub(blocks, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(max_used.load(Ordering::SeqCst) <= 100);
        assert!(memory.has_unused());
        memory.free_unused();
        assert_eq!(memory.allocated_bytes(), 0);
    }

    /// N41: a hash that needs more than the maximum is computed alone, and its memory is not kept.
    #[test]
    fn a_hash_above_the_maximum_is_computed_alone() {
        let memory = WorkingMemory::new(100 * Block::SIZE as u64, 10);
        drop(memory.take(10));
        let large = memory.take(1000);
        assert_eq!(memory.allocated_bytes(), 1000 * Block::SIZE);
        drop(large);
        assert_eq!(memory.allocated_bytes(), 0);
    }
}
