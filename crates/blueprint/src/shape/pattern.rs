//! The few regular expressions that the schemas of the language hold: classes of ASCII characters, repeated, and groups
//! of alternatives, from the beginning of a text to its end. Anything else does not compile.

/// A regular expression that was compiled.
pub(super) struct Pattern(Vec<Part>);

enum Part {
    /// So many characters of a class; a bit stands for each character of ASCII.
    Class { set: u128, min: usize, max: usize },
    /// One of several, which may be left out.
    Group { any: Vec<Vec<Part>>, optional: bool },
}

impl Pattern {
    /// Compiles an expression between `^` and `$`.
    pub fn compile(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('^')?.strip_suffix('$')?;
        let mut rest = inner.as_bytes();
        let parts = sequence(&mut rest, 0)?;
        rest.is_empty().then_some(Self(parts))
    }

    pub fn matches(&self, text: &str) -> bool {
        at(&self.0, None, text.as_bytes())
    }
}

/// What follows a group.
struct Rest<'a> {
    parts: &'a [Part],
    behind: Option<&'a Self>,
}

/// Whether what is left of a text is these parts and then the rest. No group is repeated, so the depth is bounded by the
/// expression and the time by the text.
fn at(parts: &[Part], behind: Option<&Rest<'_>>, text: &[u8]) -> bool {
    match parts.split_first() {
        None => match behind {
            None => text.is_empty(),
            Some(rest) => at(rest.parts, rest.behind, text),
        },
        Some((Part::Class { set, min, max }, parts)) => {
            let good = |b: &&u8| b.is_ascii() && set >> **b & 1 == 1;
            let most = text.iter().take(*max).take_while(good).count();
            // The longest first: what follows is nearly always of another class.
            (*min..=most)
                .rev()
                .any(|many| at(parts, behind, &text[many..]))
        }
        Some((Part::Group { any, optional }, parts)) => {
            let rest = Rest { parts, behind };
            any.iter().any(|one| at(one, Some(&rest), text)) || *optional && at(parts, behind, text)
        }
    }
}

fn sequence(rest: &mut &[u8], depth: usize) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((first, behind)) = rest.split_first() {
        match first {
            b'|' | b')' => break,
            b'(' if depth < 4 => {
                *rest = behind;
                let mut any = vec![sequence(rest, depth + 1)?];
                while let Some(behind) = rest.strip_prefix(b"|") {
                    *rest = behind;
                    any.push(sequence(rest, depth + 1)?);
                }
                *rest = rest.strip_prefix(b")")?;
                let optional = match rest.strip_prefix(b"?") {
                    Some(behind) => {
                        *rest = behind;
                        true
                    }
                    None if matches!(rest.first(), Some(b'*' | b'+' | b'{')) => return None,
                    None => false,
                };
                parts.push(Part::Group { any, optional });
            }
            b'[' => {
                *rest = behind;
                let set = class(rest)?;
                let (min, max) = repeated(rest)?;
                parts.push(Part::Class { set, min, max });
            }
            b if b.is_ascii_alphanumeric() => {
                *rest = behind;
                let (min, max) = repeated(rest)?;
                parts.push(Part::Class {
                    set: 1 << *b,
                    min,
                    max,
                });
            }
            _ => return None,
        }
    }
    Some(parts)
}

/// What stands in brackets, the closing one included.
fn class(rest: &mut &[u8]) -> Option<u128> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let mut set = 0_u128;
    let mut first = true;
    loop {
        let (from, behind) = rest.split_first()?;
        *rest = behind;
        match (from, behind) {
            (b']', _) => return (!first).then_some(set),
            (from, [b'-', to, behind @ ..]) if from.is_ascii_alphanumeric() && *to != b']' => {
                if !to.is_ascii_alphanumeric() || from > to {
                    return None;
                }
                (*from..=*to).for_each(|b| set |= 1 << b);
                *rest = behind;
            }
            // A dash stands for itself at an end only.
            (b'-', [next, ..]) if !first && *next != b']' => return None,
            (b, _) if plain(*b) => set |= 1 << *b,
            _ => return None,
        }
        first = false;
    }
}

/// How often what stands before it is there.
fn repeated(rest: &mut &[u8]) -> Option<(usize, usize)> {
    let (range, behind) = match *rest {
        [b'?', behind @ ..] => ((0, 1), behind),
        [b'*', behind @ ..] => ((0, usize::MAX), behind),
        [b'+', behind @ ..] => ((1, usize::MAX), behind),
        [b'{', behind @ ..] => {
            let end = behind.iter().position(|b| *b == b'}')?;
            let inner = std::str::from_utf8(&behind[..end]).ok()?;
            let (min, max) = inner.split_once(',').unwrap_or((inner, inner));
            ((min.parse().ok()?, max.parse().ok()?), &behind[end + 1..])
        }
        _ => return Some((1, 1)),
    };
    // Lazy and possessive forms are not known here.
    if matches!(behind.first(), Some(b'?' | b'*' | b'+' | b'{')) {
        return None;
    }
    *rest = behind;
    Some(range)
}
