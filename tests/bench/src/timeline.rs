//! Timelines as SVG: who had a slot when.

use crate::plot::{COLOURS, svg};
use plotters::prelude::{ChartBuilder, Color, Rectangle, WHITE};
use std::collections::BTreeSet;
use std::error::Error;

/// A timeline.
pub(crate) struct Timeline {
    pub(crate) title: &'static str,
    /// The unit of the times.
    pub(crate) unit: &'static str,
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
pub(crate) struct Bar {
    /// The row, from the bottom.
    pub(crate) row: usize,
    /// Bars of the same name have the same colour.
    pub(crate) colour: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Timeline {
    /// The timeline as SVG.
    pub(crate) fn svg(&self) -> Result<String, Box<dyn Error>> {
        let end = self.bars.iter().map(|bar| bar.to).fold(0.0, f64::max);
        let rows = self.bars.iter().map(|bar| bar.row + 1).max().unwrap_or(1);
        let names: BTreeSet<&str> = self.bars.iter().map(|bar| bar.colour.as_str()).collect();
        svg((1100, 300), |area| {
            let mut chart = ChartBuilder::on(area)
                .caption(self.title, ("sans-serif", 16))
                .margin(8)
                .x_label_area_size(34)
                .y_label_area_size(46)
                .build_cartesian_2d(0.0..end, 0..rows)?;
            chart.configure_mesh().x_desc(self.unit).y_desc("dataset").disable_mesh().draw()?;
            for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
                let bars = self.bars.iter().filter(|bar| bar.colour == *name);
                let boxes = bars.map(|bar| {
                    let mut rectangle = Rectangle::new([(bar.from, bar.row), (bar.to, bar.row + 1)], colour.filled());
                    rectangle.set_margin(2, 2, 0, 1);
                    rectangle
                });
                let legend = |(x, y)| Rectangle::new([(x, y - 4), (x + 10, y + 4)], colour.filled());
                chart.draw_series(boxes)?.label(*name).legend(legend);
            }
            chart.configure_series_labels().background_style(WHITE.mix(0.8)).label_font(("sans-serif", 11)).draw()?;
            Ok(())
        })
    }
}
