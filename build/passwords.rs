//! Converts the list of common passwords to the format in which the server looks them up.

use std::{error::Error, fs::File, io::Read};

use flate2::read::GzDecoder;

/// The list of common passwords as a finite state transducer. It has half the size of the list and,
/// unlike a Bloom filter, no false positives.
pub fn common_passwords() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut list = String::new();
    GzDecoder::new(File::open("third_party/passwords/common.txt.gz")?).read_to_string(&mut list)?;
    let mut set = fst::SetBuilder::memory();
    set.extend_iter(list.lines())?;
    Ok(set.into_inner()?)
}
