//! Small plots as SVG.

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor,
    SVGBackend, WHITE,
};
use std::error::Error;

pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(47, 109, 179),
    RGBColor(209, 115, 31),
    RGBColor(58, 143, 77),
    RGBColor(164, 58, 111),
    RGBColor(107, 107, 107),
    RGBColor(190, 160, 30),
];
const PANEL: (u32, u32) = (380, 300);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws on a white area of this size, and returns it as SVG.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    svg.push('\n');
    Ok(svg)
}

/// Panels of lines and points over logarithmic axes. The same name has the same colour in all panels.
pub(crate) struct Plot {
    /// The titles of the axes.
    pub(crate) axes: (&'static str, &'static str),
    /// How many panels stand side by side.
    pub(crate) across: usize,
    /// The panels.
    pub(crate) panels: Vec<Panel>,
}

/// One panel.
pub(crate) struct Panel {
    /// Its title.
    pub(crate) title: String,
    /// Its lines, each a name and points.
    pub(crate) lines: Vec<(&'static str, Vec<(f64, f64)>)>,
    /// Its dots, each a name and points.
    pub(crate) dots: Vec<(&'static str, Vec<(f64, f64)>)>,
}

impl Plot {
    /// The plot as SVG.
    pub(crate) fn svg(&self) -> Result<String, Box<dyn Error>> {
        let down = self.panels.len().div_ceil(self.across);
        let size = (PANEL.0 * u32::try_from(self.across)?, PANEL.1 * u32::try_from(down)?);
        svg(size, |area| {
            let areas = area.split_evenly((down, self.across));
            self.panels.iter().zip(areas).enumerate().try_for_each(|(i, (panel, area))| self.draw(panel, i == 0, &area))
        })
    }

    /// Draws a panel; the first one has the legend.
    fn draw(&self, panel: &Panel, is_first: bool, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
        let points = || panel.lines.iter().chain(&panel.dots).flat_map(|(_, points)| points);
        let range = |value: fn(&(f64, f64)) -> f64| {
            let min = points().map(value).fold(f64::INFINITY, f64::min);
            let max = points().map(value).fold(0.0, f64::max);
            (min / 1.2..max * 1.2).log_scale()
        };
        let mut chart = ChartBuilder::on(area)
            .caption(&panel.title, ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(46)
            .build_cartesian_2d(range(|point| point.0), range(|point| point.1))?;
        chart
            .configure_mesh()
            .x_desc(self.axes.0)
            .y_desc(self.axes.1)
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .light_line_style(WHITE)
            .draw()?;
        for (i, (name, points)) in panel.lines.iter().chain(&panel.dots).enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let series = if i >= panel.lines.len() {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?
            } else {
                chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            };
            series.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(3)));
        }
        if is_first {
            chart.configure_series_labels().background_style(WHITE.mix(0.8)).label_font(("sans-serif", 11)).draw()?;
        }
        Ok(())
    }
}

/// The label of a value on a logarithmic axis: for 1, 2 and 5 in each decade.
fn label(value: &f64) -> String {
    let text = format!("{value:.0}");
    if text.starts_with(['1', '2', '5']) { text } else { String::new() }
}
