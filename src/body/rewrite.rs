//! Replacing a few values of a body and no other byte, in a whole body or in one that is forwarded in chunks.

/// Replaces the bytes from `start` up to `end` with `with`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Offset of the first byte to replace.
    pub start: u64,
    /// Offset after the last byte to replace; equal to `start` to insert.
    pub end: u64,
    /// The new bytes.
    pub with: Vec<u8>,
}

/// The length of `length` bytes after these edits.
#[must_use]
pub fn new_length(length: u64, edits: &[Edit]) -> u64 {
    edits.iter().fold(length, |length, edit| {
        let added = u64::try_from(edit.with.len()).unwrap_or(u64::MAX);
        length
            .saturating_add(added)
            .saturating_sub(edit.end.saturating_sub(edit.start))
    })
}

/// Applies the edits inside `bytes`, which begin at offset `base` of the body. The edits must be sorted by `start` and must
/// not overlap.
#[must_use]
pub fn splice(bytes: &[u8], base: u64, edits: &[Edit]) -> Vec<u8> {
    let mut output = Vec::with_capacity(bytes.len().saturating_add(64));
    let mut copied = 0;
    let end = base.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    for edit in edits
        .iter()
        .filter(|edit| base <= edit.start && edit.end <= end)
    {
        let at = |offset: u64| usize::try_from(offset.saturating_sub(base)).unwrap_or(usize::MAX);
        output.extend(bytes.get(copied..at(edit.start)).unwrap_or_default());
        output.extend(&edit.with);
        copied = at(edit.end);
    }
    output.extend(bytes.get(copied..).unwrap_or_default());
    output
}

/// Rewrites a body that is forwarded in chunks. Keeps back no more than one unfinished value.
#[derive(Clone, Debug, Default)]
pub struct StreamRewriter {
    /// Offset of the first byte that is not forwarded yet.
    base: u64,
    /// The bytes from `base` on that arrived in earlier chunks.
    kept: Vec<u8>,
    /// Bytes that were forwarded so far, edits included.
    sent: u64,
}

impl StreamRewriter {
    /// Offset of the first byte that is not forwarded yet.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.base
    }

    /// Whether bytes are kept back.
    #[must_use]
    pub fn keeps_back(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Bytes of memory that the kept bytes take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        u64::try_from(self.kept.capacity()).unwrap_or(u64::MAX)
    }

    /// How many bytes were forwarded, edits included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Notes that the first `length` bytes of the body were already forwarded.
    pub fn skip(&mut self, length: u64) {
        self.base = length;
    }

    /// What is forwarded in place of this chunk; `None` for the chunk as it is.
    ///
    /// `keep_from` is the offset of a value that may have to be replaced once it is complete; `edits` are
    /// those known so far. An edit must be given before its bytes are forwarded.
    pub fn pass(
        &mut self,
        chunk: &[u8],
        edits: &[Edit],
        keep_from: Option<u64>,
    ) -> Option<Vec<u8>> {
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = self
            .base
            .saturating_add(length(&self.kept))
            .saturating_add(length(chunk));
        let due = edits
            .iter()
            .any(|edit| edit.start >= self.base && edit.end <= end);
        if self.kept.is_empty() && keep_from.is_none() && !due {
            self.base = end;
            self.sent = self.sent.saturating_add(length(chunk));
            return None;
        }
        let keep_from = keep_from.unwrap_or(end).clamp(self.base, end);
        let go = usize::try_from(keep_from.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.kept.extend(chunk);
        // Kept bytes are not copied again: many small chunks must not cost more than one large chunk.
        if go == 0 {
            return Some(Vec::new());
        }
        let rest = self.kept.split_off(go.min(self.kept.len()));
        let bytes = std::mem::replace(&mut self.kept, rest);
        let output = splice(&bytes, self.base, edits);
        self.base = keep_from;
        self.sent = self.sent.saturating_add(length(&output));
        Some(output)
    }
}

/// The beginning of a held body, as a list of chunks. Small chunks are joined: the client chooses the chunks, and a million of one byte each
/// must not cost more than one large chunk.
#[derive(Clone, Debug, Default)]
pub struct BodyPrefix {
    pieces: Vec<Vec<u8>>,
    length: usize,
}

/// Longer chunks are not joined with others.
const SMALL: usize = 4 * 1_024;

impl From<Vec<u8>> for BodyPrefix {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len(),
            pieces: vec![bytes],
        }
    }
}

impl BodyPrefix {
    /// Appends a chunk.
    pub fn push(&mut self, chunk: Vec<u8>) {
        self.length = self.length.saturating_add(chunk.len());
        match self.pieces.last_mut() {
            Some(last) if last.len() < SMALL && chunk.len() < SMALL => last.extend(chunk),
            _ => self.pieces.push(chunk),
        }
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The bytes from `start` up to `end`, piece by piece.
    #[must_use]
    pub fn part(&self, start: usize, end: usize) -> Vec<&[u8]> {
        let mut at = 0_usize;
        let cut = |piece| {
            let piece: &Vec<u8> = piece;
            let [from, to] = [start, end].map(|place| place.saturating_sub(at).min(piece.len()));
            at = at.saturating_add(piece.len());
            piece.get(from..to).filter(|bytes| !bytes.is_empty())
        };
        self.pieces.iter().filter_map(cut).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn edit(start: u64, end: u64, with: &str) -> Edit {
        Edit {
            start,
            end,
            with: with.as_bytes().to_vec(),
        }
    }

    #[test]
    fn only_the_edited_bytes_change() {
        let edits = [edit(2, 4, "XYZ"), edit(6, 6, "+")];
        assert_eq!(splice(b"abcdefgh", 0, &edits), b"abXYZef+gh");
        assert_eq!(new_length(8, &edits), 10);
        assert_eq!(splice(b"efgh", 4, &edits), b"ef+gh");
        assert_eq!(splice(b"ab", 6, &edits), b"+ab");
    }

    #[test]
    fn a_value_cut_by_chunks_is_kept_back_until_it_is_complete() {
        let mut passing = StreamRewriter::default();
        assert_eq!(passing.pass(b"ab", &[], None), None);
        assert_eq!(passing.pass(b"cde", &[], Some(4)), Some(b"cd".to_vec()));
        assert_eq!(passing.pass(b"f", &[], Some(4)), Some(b"".to_vec()));
        assert_eq!(
            passing.pass(b"gh", &[edit(4, 7, "-")], None),
            Some(b"-h".to_vec())
        );
        assert_eq!(passing.pass(b"ij", &[edit(4, 7, "-")], None), None);
    }

    // The client chooses the chunks: a million of one byte must not copy what is kept a million times.
    #[test]
    fn what_is_kept_is_not_copied_with_each_chunk() {
        let mut passing = StreamRewriter::default();
        let mut moves = 0;
        for _ in 0..10_000 {
            let before = passing.kept.as_ptr();
            assert_eq!(passing.pass(b"x", &[], Some(0)), Some(Vec::new()));
            moves += u32::from(passing.kept.as_ptr() != before);
        }
        assert!(moves < 50, "moved {moves} times");
        let all = passing.pass(b"y", &[edit(0, 9_999, "z")], None);
        assert_eq!(all, Some(b"zxy".to_vec()));
    }

    #[test]
    fn an_insertion_at_a_chunks_first_byte_is_made_once() {
        let edits = [edit(2, 2, "+")];
        let mut passing = StreamRewriter::default();
        assert_eq!(passing.pass(b"ab", &[], None), None);
        assert_eq!(passing.pass(b"cd", &edits, None), Some(b"+cd".to_vec()));
        assert_eq!(passing.pass(b"ef", &edits, None), None);
    }

    #[test]
    fn any_part_of_what_is_kept_is_found_however_it_came() {
        let body: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        for size in [1, 7, 4_095, 4_096, 9_000, 20_000] {
            let mut kept = BodyPrefix::default();
            body.chunks(size)
                .for_each(|chunk| kept.push(chunk.to_vec()));
            assert_eq!(kept.length(), body.len());
            for (start, end) in [
                (0, 20_000),
                (0, 0),
                (1, 4_097),
                (4_096, 8_192),
                (19_999, 20_000),
            ] {
                assert_eq!(kept.part(start, end).concat(), body[start..end], "{size}");
            }
        }
        assert_eq!(BodyPrefix::from(body.clone()).part(0, 20_000), [&body]);
    }

    // The client chooses the chunks, and each later callback would look at all pieces again.
    #[test]
    fn small_chunks_are_kept_in_few_pieces() {
        let mut kept = BodyPrefix::default();
        (0..1_000_000).for_each(|_| kept.push(vec![b'x']));
        assert_eq!(kept.length(), 1_000_000);
        assert!(kept.pieces.len() <= 250, "{} pieces", kept.pieces.len());
    }
}
