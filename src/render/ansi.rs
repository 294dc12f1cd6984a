//! Terminal text taken apart: plain text and colours; whatever else a terminal would obey is dropped.

/// A piece of terminal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Text without control characters other than tab, newline and carriage return.
    Text(&'a str),
    /// The numbers of a "select graphic rendition" sequence.
    Sgr(Vec<u16>),
}

/// More numbers in one sequence are dropped.
const MAX_NUMBERS: usize = 32;

/// Takes text apart.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let first = rest.chars().next()?;
            if is_text(first) {
                let end = rest.find(|c| !is_text(c)).unwrap_or(rest.len());
                let (text, after) = rest.split_at(end);
                rest = after;
                return Some(Piece::Text(text));
            }
            rest = &rest[first.len_utf8()..];
            let numbers = match first {
                '\u{1b}' => escape(&mut rest),
                '\u{9b}' => control_sequence(&mut rest),
                '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => string_sequence(&mut rest),
                _ => None,
            };
            if let Some(numbers) = numbers {
                return Some(Piece::Sgr(numbers));
            }
        }
    })
}

fn is_text(c: char) -> bool {
    matches!(c, '\n' | '\t' | '\r') || !c.is_control()
}

/// What follows ESC.
fn escape(rest: &mut &str) -> Option<Vec<u16>> {
    let next = rest.chars().next()?;
    match next {
        '[' => {
            *rest = &rest[1..];
            control_sequence(rest)
        }
        ']' | 'P' | 'X' | '^' | '_' => {
            *rest = &rest[1..];
            string_sequence(rest)
        }
        // Two or three characters, such as `ESC c` (reset) or `ESC ( B`.
        ' '..='/' => {
            let after = rest[1..].chars().next().map_or(0, char::len_utf8);
            *rest = &rest[1 + after..];
            None
        }
        '0'..='~' => {
            *rest = &rest[1..];
            None
        }
        _ => None,
    }
}

/// Parameters and the final letter; only `m` gives numbers.
fn control_sequence(rest: &mut &str) -> Option<Vec<u16>> {
    let length = rest
        .find(|c: char| !(' '..='?').contains(&c))
        .unwrap_or(rest.len());
    let (parameters, after) = rest.split_at(length);
    let last = after.chars().next();
    *rest = match last {
        Some('@'..='~') => &after[1..],
        // A broken sequence: what follows is read anew.
        Some(_) | None => after,
    };
    let plain = |c: char| c.is_ascii_digit() || c == ';' || c == ':';
    if last != Some('m') || !parameters.chars().all(plain) {
        return None;
    }
    let numbers = parameters.split([';', ':']).take(MAX_NUMBERS);
    Some(numbers.map(|number| number.parse().unwrap_or(0)).collect())
}

/// Everything up to BEL or ESC \ (window titles, links, images, device control).
fn string_sequence(rest: &mut &str) -> Option<Vec<u16>> {
    let end = rest.find(['\u{7}', '\u{1b}', '\u{9c}', '\n']);
    let after = &rest[end.unwrap_or(rest.len())..];
    *rest = after
        .strip_prefix("\u{1b}\\")
        .or_else(|| after.strip_prefix('\u{7}'))
        .or_else(|| after.strip_prefix('\u{9c}'))
        .unwrap_or(after);
    None
}

/// A colour: the nearest of a terminal's sixteen, which follow the theme of a page, and where more was asked
/// for, its number in the palette of 256 (16 to 255).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour {
    pub(crate) near: u8,
    pub(crate) exact: Option<u8>,
}

impl Colour {
    fn basic(number: u16) -> Self {
        Self {
            near: number as u8,
            exact: None,
        }
    }

    /// `number` is at least 16.
    fn of_palette(number: u8) -> Self {
        Self {
            near: nearest(rgb(number).map(i32::from)),
            exact: Some(number),
        }
    }
}

/// Red, green and blue of a colour of the palette; `number` is at least 16.
pub(crate) fn rgb(number: u8) -> [u8; 3] {
    let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
    match number.saturating_sub(16) {
        cube @ 0..216 => [level(cube / 36), level(cube / 6 % 6), level(cube % 6)],
        grey => [8 + 10 * (grey - 216); 3],
    }
}

/// The colour of the palette that comes nearest.
fn palette(rgb_wanted: [u8; 3]) -> u8 {
    let step = |value: u8| match value {
        0..48 => 0,
        48..115 => 1,
        _ => (value - 35) / 40,
    };
    let [r, g, b] = rgb_wanted.map(step);
    let cube = 16 + 36 * r + 6 * g + b;
    let mean = rgb_wanted.iter().map(|c| u16::from(*c)).sum::<u16>() / 3;
    let grey = 232 + (mean.saturating_sub(3) / 10).min(23) as u8;
    let far = |number: u8| {
        let parts = rgb(number).into_iter().zip(rgb_wanted);
        let squares = parts.map(|(a, b)| i32::from(a.abs_diff(b)).pow(2));
        squares.sum::<i32>()
    };
    if far(grey) < far(cube) { grey } else { cube }
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Style {
    pub(crate) foreground: Option<Colour>,
    pub(crate) background: Option<Colour>,
    pub(crate) bold: bool,
    pub(crate) dim: bool,
    pub(crate) italic: bool,
    pub(crate) underline: bool,
    pub(crate) strike: bool,
    pub(crate) inverse: bool,
}

impl Style {
    /// Applies the numbers of a sequence.
    pub(crate) fn apply(&mut self, numbers: &[u16]) {
        let mut numbers = numbers.iter().copied();
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Style::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underline = true,
                7 => self.inverse = true,
                9 => self.strike = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                27 => self.inverse = false,
                29 => self.strike = false,
                30..=37 => self.foreground = Some(Colour::basic(number - 30)),
                38 => self.foreground = extended(&mut numbers).or(self.foreground),
                39 => self.foreground = None,
                40..=47 => self.background = Some(Colour::basic(number - 40)),
                48 => self.background = extended(&mut numbers).or(self.background),
                49 => self.background = None,
                90..=97 => self.foreground = Some(Colour::basic(number - 90 + 8)),
                100..=107 => self.background = Some(Colour::basic(number - 100 + 8)),
                _ => {}
            }
        }
    }
}

/// `5;n` or `2;r;g;b`.
fn extended(numbers: &mut impl Iterator<Item = u16>) -> Option<Colour> {
    match numbers.next()? {
        5 => match numbers.next()? {
            number @ 0..=15 => Some(Colour::basic(number)),
            number @ 16..=255 => Some(Colour::of_palette(number as u8)),
            _ => None,
        },
        2 => {
            let mut channel = || numbers.next().map(|n| n.min(255) as u8);
            Some(Colour::of_palette(palette([
                channel()?,
                channel()?,
                channel()?,
            ])))
        }
        _ => None,
    }
}

fn nearest(rgb: [i32; 3]) -> u8 {
    const SIXTEEN: [[i32; 3]; 16] = [
        [0, 0, 0],
        [187, 0, 0],
        [0, 150, 0],
        [160, 110, 0],
        [0, 60, 190],
        [160, 0, 160],
        [0, 140, 150],
        [170, 170, 170],
        [100, 100, 100],
        [255, 85, 85],
        [60, 220, 60],
        [240, 220, 60],
        [90, 130, 255],
        [255, 100, 255],
        [80, 230, 230],
        [255, 255, 255],
    ];
    let distance = |colour: &[i32; 3]| -> i32 {
        let parts = colour.iter().zip(rgb);
        parts.map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let nearest = (0..16).min_by_key(|&index| distance(&SIXTEEN[index]));
    nearest.unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_and_colours_are_left() {
        let nasty = "a\u{1b}[1;31mred\u{1b}[0m\u{1b}[2J\u{1b}]0;title\u{7}b\u{1b}]8;;http://x\u{1b}\\c\u{1b}c\u{1b}(Bd\u{9b}5Ae\u{0}\u{7f}\u{85}f\u{1b}[?25lg\u{1b}Pq\u{1b}\\h\u{1b}";
        let text: String = pieces(nasty)
            .filter_map(|piece| match piece {
                Piece::Text(text) => Some(text),
                Piece::Sgr(_) => None,
            })
            .collect();
        assert_eq!(text, "aredbcdefgh");
        let colours: Vec<_> = pieces(nasty)
            .filter(|p| matches!(p, Piece::Sgr(_)))
            .collect();
        assert_eq!(colours, [Piece::Sgr(vec![1, 31]), Piece::Sgr(vec![0])]);
    }

    #[test]
    fn a_sequence_that_does_not_end_swallows_one_line_at_most() {
        let text: Vec<_> = pieces("\u{1b}]0;never\nnext").collect();
        assert_eq!(text, [Piece::Text("\nnext")]);
        let text: Vec<_> = pieces("\u{1b}[1;é").collect();
        assert_eq!(text, [Piece::Text("é")]);
    }

    #[test]
    fn many_colours_have_a_place_in_the_palette() {
        let mut style = Style::default();
        style.apply(&[38, 5, 196, 48, 2, 0, 0, 0, 1]);
        let colour = |near, exact| {
            Some(Colour {
                near,
                exact: Some(exact),
            })
        };
        assert_eq!(
            (style.foreground, style.background),
            (colour(1, 196), colour(0, 16))
        );
        assert!(style.bold);
        style.apply(&[38, 5]);
        style.apply(&[]);
        assert_eq!(style.foreground, colour(1, 196));
        style.apply(&[38, 5, 9]);
        assert_eq!(style.foreground, Some(Colour::basic(9)));
        style.apply(&[0]);
        assert_eq!(style, Style::default());
        for number in 16..=255 {
            let again = palette(rgb(number));
            assert_eq!(rgb(again), rgb(number), "{number}");
        }
    }
}
