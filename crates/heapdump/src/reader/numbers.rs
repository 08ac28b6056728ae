//! Reads the numbers of a column or a list.

use crate::varint;

/// The reason why a block contradicts itself.
pub(crate) type Why = &'static str;

/// A number of at most 32 bits.
#[inline]
pub(crate) fn small(number: u64) -> Result<u32, Why> {
    u32::try_from(number).map_err(|_| "a number is too large")
}

/// The rest of a column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers<'a> {
    bytes: &'a [u8],
}

impl<'a> Numbers<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub fn next(&mut self) -> Result<u64, Why> {
        let (number, len) = varint::read(self.bytes).ok_or("a number is cut off or too large")?;
        self.bytes = self.bytes.get(len..).unwrap_or_default();
        Ok(number)
    }

    #[inline]
    pub fn small(&mut self) -> Result<u32, Why> {
        small(self.next()?)
    }

    /// Reads a whole column: as many entries as there are objects.
    #[inline]
    pub fn fill<T: Copy + Default>(
        &mut self,
        column: &mut Vec<T>,
        count: usize,
        mut entry: impl FnMut(u64) -> Result<T, Why>,
    ) -> Result<(), Why> {
        column.resize(count, T::default());
        let mut eights = column.chunks_exact_mut(8);
        for places in &mut eights {
            // Most numbers take one byte.
            if let Some((start, rest)) = self.bytes.split_first_chunk::<8>()
                && u64::from_le_bytes(*start) & 0x8080_8080_8080_8080 == 0
            {
                for (place, byte) in places.iter_mut().zip(start) {
                    *place = entry(u64::from(*byte))?;
                }
                self.bytes = rest;
                continue;
            }
            for place in places {
                *place = entry(self.next()?)?;
            }
        }
        for place in eights.into_remainder() {
            *place = entry(self.next()?)?;
        }
        self.end()
    }

    #[inline]
    pub fn signed(&mut self) -> Result<i64, Why> {
        self.next().map(varint::unzigzag)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Why> {
        let (first, rest) = self.bytes.split_first().ok_or("a byte is missing")?;
        self.bytes = rest;
        Ok(*first)
    }

    #[inline]
    pub fn slice(&mut self, len: u64) -> Result<&'a [u8], Why> {
        let len = usize::try_from(len).map_err(|_| "a length exceeds its block")?;
        let (slice, rest) = self.bytes.split_at_checked(len).ok_or("a length exceeds its block")?;
        self.bytes = rest;
        Ok(slice)
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<(), Why> {
        if self.is_empty() { Ok(()) } else { Err("a column has more entries than objects") }
    }
}
