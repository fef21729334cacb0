//! The packets returned by a plugin's transform.

use std::ops::Range;

/// Concatenated packets, and the length of each. Those of length 0 are dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transformed {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

impl Transformed {
    /// Checks that there are `expected` packets, and that their lengths add up to the number of
    /// bytes.
    pub(crate) fn new(bytes: Vec<u8>, lengths: Vec<u32>, expected: usize) -> Result<Self, String> {
        if lengths.len() != expected {
            return Err(format!("{} packets out of {expected}", lengths.len()));
        }
        let sum: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        if sum != bytes.len() as u64 {
            return Err(format!("packets of {sum} bytes in {} bytes", bytes.len()));
        }
        Ok(Self { bytes, lengths })
    }

    /// Returns the number of packets, including dropped ones.
    pub(crate) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// Returns the number of dropped packets.
    pub(crate) fn dropped(&self) -> usize {
        self.lengths.iter().filter(|&&length| length == 0).count()
    }

    /// Iterates over the packets that are not dropped.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let left = ranges(&self.lengths).filter(|range| !range.is_empty());
        left.map(|range| &self.bytes[range])
    }

    /// Returns the bytes, and the range of each packet; the range of a dropped packet is empty.
    pub(crate) fn into_parts(self) -> (Vec<u8>, impl Iterator<Item = Range<usize>>) {
        let Self { bytes, lengths } = self;
        let places: Vec<_> = ranges(&lengths).collect();
        (bytes, places.into_iter())
    }
}

fn ranges(lengths: &[u32]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    lengths.iter().map(move |&length| {
        let end = start + length as usize;
        std::mem::replace(&mut start, end)..end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_separated_by_their_lengths() {
        let transformed = Transformed::new(b"onetwo".to_vec(), vec![3, 0, 3], 3).unwrap();
        assert_eq!(transformed.iter().collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!((transformed.count(), transformed.dropped()), (3, 1));
        let (_, places) = transformed.into_parts();
        assert_eq!(places.collect::<Vec<_>>(), [0..3, 3..3, 3..6]);
    }

    #[test]
    fn inconsistent_lengths_are_refused() {
        let new = |lengths: &[u32]| Transformed::new(b"onetwo".to_vec(), lengths.to_vec(), 2);
        assert_eq!(new(&[6]), Err("1 packets out of 2".into()));
        assert_eq!(new(&[3, 4]), Err("packets of 7 bytes in 6 bytes".into()));
        assert_eq!(new(&[u32::MAX, 7]), Err("packets of 4294967302 bytes in 6 bytes".into()));
    }
}
