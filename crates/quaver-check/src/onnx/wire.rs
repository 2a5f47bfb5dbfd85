//! The wire format of protocol buffers: a message is a list of numbered fields.

/// One field's contents.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Calls `take` with the number and the contents of each field of a message.
pub(super) fn each<'a>(
    mut message: &'a [u8],
    mut take: impl FnMut(u32, Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let number = u32::try_from(key >> 3).ok().filter(|&n| n > 0).ok_or("a field has a bad number")?;
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut message)?),
            1 => Field::Fixed64(array(&mut message)?),
            2 => {
                let length = varint(&mut message)?;
                Field::Bytes(split(&mut message, length)?)
            }
            5 => Field::Fixed32(array(&mut message)?),
            kind => return Err(format!("field {number} has the wire type {kind}, which is not understood")),
        };
        take(number, field)?;
    }
    Ok(())
}

/// Sets a field that may be given once.
pub(super) fn once<T>(slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    if slot.replace(value?).is_some() { Err("a field is given twice".into()) } else { Ok(()) }
}

/// Sets a field; the last one counts.
pub(super) fn set<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

/// Appends to a repeated field.
pub(super) fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

impl<'a> Field<'a> {
    /// A nested message, or raw bytes.
    pub fn bytes(self) -> Result<&'a [u8], String> {
        if let Field::Bytes(bytes) = self { Ok(bytes) } else { Err(self.other_than("bytes")) }
    }

    pub fn text(self) -> Result<String, String> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8")?;
        Ok(text.into())
    }

    pub fn int(self) -> Result<i64, String> {
        if let Field::Varint(bits) = self { Ok(bits as i64) } else { Err(self.other_than("an integer")) }
    }

    pub fn float(self) -> Result<f32, String> {
        if let Field::Fixed32(bits) = self { Ok(f32::from_le_bytes(bits)) } else { Err(self.other_than("a float")) }
    }

    /// Appends one integer, or a packed list of them.
    pub fn ints(self, to: &mut Vec<i64>) -> Result<(), String> {
        let Field::Bytes(mut packed) = self else {
            to.push(self.int()?);
            return Ok(());
        };
        while !packed.is_empty() {
            to.push(varint(&mut packed)? as i64);
        }
        Ok(())
    }

    /// Appends one float, or a packed list of them.
    pub fn floats(self, to: &mut Vec<f32>) -> Result<(), String> {
        match self {
            Field::Bytes(packed) => to.extend(words(packed)?.iter().map(|&w| f32::from_le_bytes(w))),
            _ => to.push(self.float()?),
        }
        Ok(())
    }

    /// Appends one double, or a packed list of them.
    pub fn doubles(self, to: &mut Vec<f64>) -> Result<(), String> {
        match self {
            Field::Bytes(packed) => to.extend(words(packed)?.iter().map(|&w| f64::from_le_bytes(w))),
            Field::Fixed64(word) => to.push(f64::from_le_bytes(word)),
            _ => return Err(self.other_than("a double")),
        }
        Ok(())
    }

    fn other_than(self, wanted: &str) -> String {
        format!("a field should hold {wanted}, but holds {self:.40?}")
    }
}

/// The bytes as words of N.
pub(super) fn words<const N: usize>(bytes: &[u8]) -> Result<&[[u8; N]], String> {
    match bytes.as_chunks::<N>() {
        (words, []) => Ok(words),
        _ => Err(format!("{} bytes are not a whole number of elements of {N} bytes", bytes.len())),
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = array(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("an integer has more than 64 bits".into())
}

fn split<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).ok().filter(|&n| n <= bytes.len()).ok_or("the file ends within a field")?;
    let (first, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(first)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (first, rest) = bytes.split_first_chunk::<N>().ok_or("the file ends within a field")?;
    *bytes = rest;
    Ok(*first)
}
