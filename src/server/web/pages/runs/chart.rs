//! A chart as SVG, drawn on the server: it needs no script. Pure.

use askama::Template;

use super::super::words::value;
use super::ticks::{Axis, Scale, elapsed};

/// Width and height, and what is kept free on each side for the marks' words.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;
/// Lines have so many looks.
pub(super) const LOOKS: usize = 8;

/// Points of a line that lie side by side; a gap where none of them is a finite number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spot {
    /// From where to where they reach.
    pub(super) x: (f64, f64),
    /// The least and the highest value.
    pub(super) values: Option<(f64, f64)>,
}

/// One line, from left to right.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Whose it is; empty where there is only one.
    pub(super) name: String,
    /// Which of [`LOOKS`] it has.
    pub(super) look: usize,
    pub(super) spots: Vec<Spot>,
    /// How many points are no finite number.
    pub(super) odd: u64,
}

/// What a chart is of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plot {
    /// Unique in its page.
    pub(super) id: String,
    pub(super) title: String,
    /// Whether `x` is in milliseconds since the start, or in steps.
    pub(super) by_time: bool,
    pub(super) log: bool,
    pub(super) lines: Vec<Line>,
}

struct Mark {
    at: String,
    words: String,
}

struct Drawn {
    look: usize,
    name: String,
    path: String,
}

/// The chart of a [`Plot`], as its template draws it.
#[derive(Template)]
#[template(path = "chart.html")]
pub(super) struct Chart {
    id: String,
    title: String,
    /// What a reader hears who does not see it.
    words: String,
    /// What it cannot show.
    note: String,
    x_name: &'static str,
    across: Vec<Mark>,
    up: Vec<Mark>,
    lines: Vec<Drawn>,
}

impl Chart {
    /// Draws it; none where no point has a place.
    pub(super) fn draw(plot: &Plot) -> Option<Self> {
        let (x, y) = axes(plot)?;
        let drawn = |line: &Line| Drawn {
            look: line.look % LOOKS,
            name: line.name.clone(),
            path: path(&line.spots, x, y),
        };
        let mark = |at: f64, words: String| Mark {
            at: format!("{at:.1}"),
            words,
        };
        let (across, up) = (x.ticks(), y.ticks());
        Some(Self {
            id: plot.id.clone(),
            words: words(plot),
            note: note(plot),
            title: plot.title.clone(),
            x_name: if plot.by_time { "time" } else { "step" },
            across: across
                .into_iter()
                .map(|(at, w)| mark(over(at), w))
                .collect(),
            up: up.into_iter().map(|(at, w)| mark(down(at), w)).collect(),
            lines: plot.lines.iter().map(drawn).collect(),
        })
    }
}

fn over(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn down(place: f64) -> f64 {
    HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
}

/// Whether a value has a place on the chart's scale.
fn shown(log: bool, value: f64) -> bool {
    !log || value > 0.0
}

fn axes(plot: &Plot) -> Option<(Axis, Axis)> {
    let mut across: Option<(f64, f64)> = None;
    let mut up: Option<(f64, f64)> = None;
    let grow = |reach: Option<(f64, f64)>, (low, high): (f64, f64)| match reach {
        Some((least, most)) => Some((least.min(low), most.max(high))),
        None => Some((low, high)),
    };
    for spot in plot.lines.iter().flat_map(|line| &line.spots) {
        across = grow(across, spot.x);
        let Some((low, high)) = spot.values else {
            continue;
        };
        for value in [low, high].into_iter().filter(|v| shown(plot.log, *v)) {
            up = grow(up, (value, value));
        }
    }
    let (across, up) = (across?, up?);
    let scale = if plot.by_time {
        Scale::Elapsed
    } else {
        Scale::Whole
    };
    let values = if plot.log { Scale::Log } else { Scale::Linear };
    Some((
        Axis::new(across.0, across.1, scale),
        Axis::new(up.0, up.1, values),
    ))
}

/// The line through spots: where one holds several points, through its least and its highest, the nearer one first. What
/// has no place interrupts it; a point alone is a dot, as its line has round ends.
fn path(spots: &[Spot], x: Axis, y: Axis) -> String {
    let mut path = String::new();
    let mut before: Option<f64> = None;
    for spot in spots {
        let ends = spot.values.and_then(|(low, high)| {
            Some((y.place(low).or_else(|| y.place(high))?, y.place(high)?))
        });
        let Some((low, high)) = ends else {
            before = None;
            continue;
        };
        let (left, right) = (x.place(spot.x.0), x.place(spot.x.1));
        let (Some(left), Some(right)) = (left, right) else {
            continue;
        };
        let rises = before.is_none_or(|before| (before - low).abs() <= (before - high).abs());
        let (first, last) = if rises { (low, high) } else { (high, low) };
        let verb = if before.is_some() { 'L' } else { 'M' };
        path.push_str(&format!("{verb}{:.1} {:.1}", over(left), down(first)));
        path.push_str(&format!("L{:.1} {:.1}", over(right), down(last)));
        before = Some(last);
    }
    path
}

/// What there is to see, in words.
fn words(plot: &Plot) -> String {
    let axis = if plot.by_time { "time" } else { "step" };
    let x = |at: f64| match plot.by_time {
        true => elapsed(at),
        false => value(at),
    };
    let line = |line: &Line| {
        let finite = || line.spots.iter().filter_map(|s| s.values.map(|v| (s.x, v)));
        let Some(first) = finite().next() else {
            return format!("{} has no finite value", line.name);
        };
        let last = finite().next_back().unwrap_or(first);
        let (least, most) = finite()
            .fold((f64::MAX, f64::MIN), |(least, most), (_, (low, high))| {
                (least.min(low), most.max(high))
            });
        let name = match line.name.as_str() {
            "" => String::new(),
            name => format!("{name} "),
        };
        let (from, to) = (x(first.0.0), x(last.0.1));
        format!(
            "{name}from {axis} {from} to {to}: between {} and {}, {} at the end",
            value(least),
            value(most),
            value(last.1.1)
        )
    };
    let all: Vec<String> = plot.lines.iter().map(line).collect();
    all.join("; ")
}

fn note(plot: &Plot) -> String {
    let odd: u64 = plot.lines.iter().map(|line| line.odd).sum();
    let below = plot.log
        && plot
            .lines
            .iter()
            .flat_map(|line| &line.spots)
            .any(|spot| spot.values.is_some_and(|(low, _)| low <= 0.0));
    let mut notes = Vec::new();
    if odd > 0 {
        let are = if odd == 1 { "point is" } else { "points are" };
        notes.push(format!("{odd} {are} NaN or infinite"));
    }
    if below {
        notes.push("zero and less have no place on this scale".to_owned());
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(x: f64, low: f64, high: f64) -> Spot {
        Spot {
            x: (x, x),
            values: Some((low, high)),
        }
    }

    fn gap(x: f64) -> Spot {
        Spot {
            x: (x, x),
            values: None,
        }
    }

    fn plot(spots: Vec<Spot>, log: bool) -> Plot {
        Plot {
            id: "c0".into(),
            title: "<loss>".into(),
            by_time: false,
            log,
            lines: vec![Line {
                name: String::new(),
                look: 0,
                spots,
                odd: 1,
            }],
        }
    }

    #[test]
    fn a_line_has_gaps_where_values_have_no_place() {
        let spots = vec![
            spot(0.0, 1.0, 1.0),
            spot(1.0, 2.0, 2.0),
            gap(2.0),
            spot(3.0, 0.0, 0.0),
        ];
        let chart = Chart::draw(&plot(spots.clone(), false)).unwrap();
        assert_eq!(chart.lines[0].path.matches('M').count(), 2);
        let chart = Chart::draw(&plot(spots, true)).unwrap();
        assert_eq!(chart.lines[0].path.matches('M').count(), 1);
        assert_eq!(
            chart.note,
            "1 point is NaN or infinite; zero and less have no place on this scale"
        );
        assert!(Chart::draw(&plot(vec![gap(1.0)], false)).is_none());
        assert!(Chart::draw(&plot(Vec::new(), false)).is_none());
    }

    #[test]
    fn a_falling_line_falls_through_its_buckets() {
        let spots = vec![
            spot(0.0, 9.0, 10.0),
            spot(1.0, 7.0, 8.0),
            spot(2.0, 5.0, 6.0),
        ];
        let chart = Chart::draw(&plot(spots, false)).unwrap();
        let heights: Vec<f64> = chart.lines[0]
            .path
            .split(['M', 'L'])
            .filter_map(|point| point.split(' ').nth(1)?.parse().ok())
            .collect();
        assert!(
            heights[1..].windows(2).all(|two| two[0] <= two[1]),
            "{heights:?}"
        );
    }

    #[test]
    fn a_chart_says_what_it_shows() {
        let html = Chart::draw(&plot(vec![spot(0.0, 3.0, 3.0), spot(9.0, 0.5, 0.5)], false))
            .unwrap()
            .render()
            .unwrap();
        assert!(html.contains("role=\"img\"") && html.contains("aria-labelledby=\"c0-t c0-d\""));
        assert!(
            html.contains("from step 0 to 9: between 0.5 and 3, 0.5 at the end"),
            "{html}"
        );
        assert!(html.contains("&#60;loss&#62;") && !html.contains("<loss>"));
    }
}
