//! Files that may be packed by gzip.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;

/// The contents of a file, at most so many bytes of them.
///
/// # Errors
/// If a packed file is damaged, or the contents are longer.
pub fn unpacked(bytes: &[u8], most: u64) -> Result<Cow<'_, [u8]>, String> {
    let content = match bytes {
        [0x1f, 0x8b, ..] => {
            let mut all = vec![];
            let read = MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut all);
            read.map_err(|why| format!("the gzip file is damaged and cannot be unpacked: {why}"))?;
            Cow::Owned(all)
        }
        _ => Cow::Borrowed(bytes),
    };
    match content.len() as u64 <= most {
        true => Ok(content),
        false => Err(format!("the file holds more than {most} bytes")),
    }
}
