//! The list of common passwords, in the form that the server looks them up in.

use std::{error::Error, fs::File, io::Read};

use flate2::read::GzDecoder;

/// The list as a finite state transducer: half its size, and no false positives.
pub fn common() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut list = String::new();
    GzDecoder::new(File::open("third_party/passwords/common.txt.gz")?).read_to_string(&mut list)?;
    let mut set = fst::SetBuilder::memory();
    set.extend_iter(list.lines())?;
    Ok(set.into_inner()?)
}
