//! What an event costs the queue, over the number of resources: a ratio, because machines differ.

use crate::plot::{Panel, Plot};
use crate::report::{Report, as_f64};
use crate::resources::{resource, second, uid, with_job};
use personalize_operator::import::{Admission, ImportRequest, Timing, Trust};
use personalize_operator::personalize::ACTIVE;
use personalize_operator::queue::Queue;
use std::error::Error;
use std::time::Instant;

/// The numbers of waiting resources. Twice as many are finished.
const WAITING: [u64; 4] = [100, 1_000, 10_000, 30_000];

/// The lives that are measured: a resource is created and asks; the next one submits, and its import ends.
const LIVES: u64 = 1_000;

/// The seconds of all lives in a queue with this many resources that wait.
fn lives(waiting: u64) -> Result<f64, Box<dyn Error>> {
    let make = |i: u64| {
        let arn = format!("arn:aws:personalize:eu-west-1:111111111111:dataset/shop/d{}", i % 50);
        resource(i, &format!("team-{}", i % 7), &arn)
    };
    let mut queue = Queue::new(5, Timing::default());
    for i in 0..3 * waiting {
        let resource = make(i)?;
        let resource = if i % 3 == 0 { resource } else { with_job(&resource, 2, Some(ACTIVE))? };
        queue.observe(&resource, Trust::Trusted);
    }
    let pool = ImportRequest::of(&make(0)?)?.dataset.account_region().clone();
    let now = second(10_000_000);
    let events = (3 * waiting..3 * waiting + LIVES).map(make).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    for (event, number) in events.iter().zip(3 * waiting..) {
        queue.observe(event, Trust::Trusted);
        let _ = queue.try_admit(&uid(number), now);
        queue.release(&uid(number));
        let next = queue.admissible(&pool, now).into_iter().next().ok_or("nothing is admissible")?;
        let number: u64 = next.name.trim_start_matches("import-").parse()?;
        assert_eq!(queue.try_admit(&uid(number), now), Admission::Admitted);
        let next = make(number)?;
        queue.observe(&with_job(&next, 2, None)?, Trust::Trusted);
        queue.release(&uid(number));
        queue.observe(&with_job(&next, 3, Some(ACTIVE))?, Trust::Trusted);
        let _ = (queue.stats(), queue.reasons(), queue.running());
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Runs the measurement.
pub(crate) fn measure() -> Result<Report, Box<dyn Error>> {
    let mut points = Vec::new();
    for waiting in WAITING {
        points.push((as_f64(waiting), lives(waiting)?));
    }
    let base = points.first().map_or(1.0, |(_, seconds)| *seconds);
    points.iter_mut().for_each(|(_, seconds)| *seconds /= base);
    let rows = points.iter().map(|(waiting, ratio)| (format!("{waiting} waiting"), vec![*ratio])).collect();
    let least = WAITING.first().copied().unwrap_or_default();
    let linear = points.iter().map(|(waiting, _)| (*waiting, waiting / as_f64(least))).collect();
    let panel = Panel {
        title: "Time of an event, as a multiple of that in the shortest line".into(),
        lines: vec![("operator", points), ("if it were linear", linear)],
        dots: Vec::new(),
    };
    let plot = Plot { axes: ("resources that wait", "multiple"), across: 1, panels: vec![panel] };
    Ok(Report { columns: &["multiple"], rows, plot: Some(("events.svg", plot.svg()?)) })
}
