//! Schedules of pools: parses days, hours and time zones.

use jiff::{civil::Weekday, tz::TimeZone};

use super::{document::Document, sections};
use edgerunner_scheduler::schedule::{Hours, Schedule};

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Document {
    pub(super) fn check_schedules(
        &mut self,
        pool: &str,
        written: &[sections::Schedule],
    ) -> Vec<Schedule> {
        let mut schedules = Vec::new();
        for (index, schedule) in written.iter().enumerate() {
            let pointer = format!("{pool}/schedules/{index}");
            schedules.push(self.check_schedule(&pointer, schedule));
        }
        schedules
    }

    fn check_schedule(&mut self, pointer: &str, schedule: &sections::Schedule) -> Schedule {
        let mut days = Vec::new();
        for (index, text) in schedule.days.iter().enumerate() {
            match days_of(text) {
                Some(found) => days.extend(found),
                None => self.error(
                    &format!("{pointer}/days/{index}"),
                    "write mon, tue, wed, thu, fri, sat or sun, or a range such as mon-fri",
                ),
            }
        }
        if schedule.days.is_empty() {
            days.extend(DAYS.map(|(_, day)| day));
        }
        let hours = schedule.hours.as_deref().map_or(Some(Hours::WHOLE_DAY), Hours::parse);
        if hours.is_none() {
            let problem = "write two different times such as 08:00-18:00, or 22:00-06:00 to end on \
                           the next day";
            self.error(&format!("{pointer}/hours"), problem);
        }
        let time_zone = TimeZone::get(&schedule.time_zone);
        if time_zone.is_err() {
            let problem = "write a time zone name such as Europe/Berlin or UTC";
            self.error(&format!("{pointer}/time_zone"), problem);
        }
        if schedule.min_idle.is_none() {
            let problem = "each schedule needs min_idle: write min_idle = 1, for example";
            self.error(&format!("{pointer}/min_idle"), problem);
        }
        Schedule {
            days,
            hours: hours.unwrap_or(Hours::WHOLE_DAY),
            time_zone: time_zone.unwrap_or(TimeZone::UTC),
            min_idle: schedule.min_idle.unwrap_or_default(),
        }
    }
}

/// A day, or a range, which may wrap around the end of the week.
fn days_of(text: &str) -> Option<Vec<Weekday>> {
    let index =
        |name: &str| DAYS.iter().position(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (index(first)?, index(last)?),
        None => (index(text)?, index(text)?),
    };
    let count = (last + DAYS.len() - first) % DAYS.len() + 1;
    Some(DAYS.iter().cycle().skip(first).take(count).map(|(_, day)| *day).collect())
}

#[cfg(test)]
mod tests {
    use Weekday::{Friday, Monday, Saturday, Sunday};

    use super::*;

    #[test]
    fn days_are_named_alone_or_in_ranges() {
        assert_eq!(days_of("Fri"), Some(vec![Friday]));
        assert_eq!(days_of("sat-mon"), Some(vec![Saturday, Sunday, Monday]));
        assert_eq!(days_of("tue - mon").unwrap().len(), 7);
        for text in ["", "friday", "mon-", "mon-fri-sun", "mon,fri"] {
            assert_eq!(days_of(text), None, "{text}");
        }
    }
}
