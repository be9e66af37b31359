//! How a target reads the bytes that a fuzzer gives it.

/// The first bytes choose a case and where to cut; the rest is what is to be parsed.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Which of several cases; any number.
    pub choice: usize,
    flags: u8,
    cuts: [usize; 3],
    /// What is to be parsed.
    pub bytes: &'a [u8],
}

/// Above this, byte by byte takes too long for what it finds.
const LONGEST_IN_BYTES: usize = 1_024;

impl<'a> Input<'a> {
    /// `None` if that is too short.
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let (&[choice, flags, cuts @ ..], bytes) = data.split_first_chunk::<8>()?;
        let cut = |at: usize| usize::from(u16::from_le_bytes([cuts[at], cuts[at + 1]]));
        Some(Self {
            choice: choice.into(),
            flags,
            cuts: [cut(0), cut(2), cut(4)],
            bytes,
        })
    }

    /// The bytes that are read as this.
    pub fn write(choice: usize, flags: u8, bytes: &[u8]) -> Vec<u8> {
        let choice = u8::try_from(choice).unwrap();
        [&[choice, flags, 7, 0, 40, 0, 99, 0], bytes].concat()
    }

    /// One of eight yes-or-no choices.
    pub fn flag(&self, index: u32) -> bool {
        self.flags >> index & 1 == 1
    }

    /// The bytes in other chunks than one.
    pub fn chunkings<'b>(&self, bytes: &'b [u8]) -> Vec<Vec<&'b [u8]>> {
        let mut cuts = self.cuts.map(|cut| cut % (bytes.len() + 1)).to_vec();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        let mut all = vec![parts.collect()];
        if bytes.len() <= LONGEST_IN_BYTES {
            all.push(bytes.chunks(1).collect());
        }
        all
    }
}
