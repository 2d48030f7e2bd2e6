//! The groups' figures as bars, in one SVG file that any browser shows.

use std::fmt::Write as _;

use crate::groups::Group;
use crate::report::Line;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 110.0;
const ROW: f64 = 20.0;
const BAR: f64 = 13.0;
const HEAD: f64 = 48.0;
const GAP: f64 = 26.0;
const CASE_GAP: f64 = 8.0;

/// A bar beyond this many times the floor would make all others unreadable: it is cut, and its number says more.
const LONGEST: f64 = 8.0;

/// The whole chart: a panel a group, a bar a mover and case, a line where the floor or the allowance is.
pub(crate) fn svg(groups: &[(Group, Vec<Line>)]) -> String {
    let mut body = String::new();
    let mut y = GAP;
    for (group, lines) in groups.iter().filter(|(_, lines)| !lines.is_empty()) {
        y = panel(&mut body, *group, lines, y) + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Draws a group from `top` on, and says where it ends.
fn panel(body: &mut String, group: Group, lines: &[Line], top: f64) -> f64 {
    let longest = lines.iter().map(|line| line.figure).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest.min(LONGEST);
    let mut y = top + HEAD;
    text(
        body,
        12.0,
        top + 4.0,
        "font-weight=\"bold\" font-size=\"14\"",
        group.title(),
    );
    text(
        body,
        12.0,
        top + 22.0,
        "fill=\"#555555\"",
        group.figure_name(),
    );
    let (mut case, mut numbers) = (None, Vec::new());
    for line in lines.iter().filter(|line| line.figure.is_finite()) {
        let before = case.replace(&line.case);
        if before != Some(&line.case) {
            y += before.map_or(0.0, |_| CASE_GAP);
            text(body, 12.0, y, "fill=\"#555555\"", &line.case);
        }
        let x = LEFT - 8.0;
        text(body, x, y, "text-anchor=\"end\"", line.mover);
        let colour = if line.mover.starts_with("reelvault") {
            "#1f6feb"
        } else {
            "#9aa4b2"
        };
        let length = scale * line.figure.min(LONGEST);
        let bar_y = y - BAR + 2.0;
        writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{bar_y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
        )
        .expect("a string takes what is written");
        let more = if line.figure > LONGEST { " (cut)" } else { "" };
        let number = format!("{:.2}{more}", line.figure);
        // White around the number, for where it meets the line.
        let halo = "paint-order=\"stroke\" stroke=\"#ffffff\" stroke-width=\"4\"";
        numbers.push((LEFT + length + 6.0, y, halo, number));
        y += ROW;
    }
    let (x, from, to) = (LEFT + scale, top + HEAD - ROW + 4.0, y - ROW + 6.0);
    writeln!(
        body,
        "<line x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\" stroke=\"#d1242f\" stroke-dasharray=\"3 3\"/>"
    )
    .expect("a string takes what is written");
    for (x, y, style, number) in numbers {
        text(body, x, y, style, &number);
    }
    y - ROW + BAR
}

fn text(body: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"
    )
    .expect("a string takes what is written");
}
