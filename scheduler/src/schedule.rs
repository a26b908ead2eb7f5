//! Schedules: hours of the week at which a pool keeps another number of runners idle.

use jiff::{Timestamp, civil::Weekday, tz::TimeZone};

use crate::model::UnixMs;

/// The schedules of one pool.
pub struct Timetable {
    /// Index of the pool.
    pub pool: usize,
    schedules: Vec<Schedule>,
    /// While no schedule applies.
    otherwise: usize,
}

impl Timetable {
    /// `otherwise`: the pool's `min_idle` at all other times.
    pub fn new(pool: usize, schedules: Vec<Schedule>, otherwise: usize) -> Self {
        Self { pool, schedules, otherwise }
    }

    /// The `min_idle` of the first schedule that applies.
    pub fn min_idle(&self, now: UnixMs) -> usize {
        let now = i64::try_from(now).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let current = now.and_then(|now| self.schedules.iter().find(|it| it.applies(now)));
        current.map_or(self.otherwise, |schedule| schedule.min_idle)
    }
}

#[derive(Clone, Debug)]
pub struct Schedule {
    /// The days on which it begins.
    pub days: Vec<Weekday>,
    pub hours: Hours,
    pub time_zone: TimeZone,
    pub min_idle: usize,
}

impl Schedule {
    /// In local time: when clocks go forward an hour is skipped, and when they go back an hour
    /// applies twice.
    fn applies(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.time_zone.clone());
        let minute = minute(local.hour(), local.minute());
        let Hours { from, to } = self.hours;
        let (today, yesterday) = (local.weekday(), local.weekday().previous());
        if from < to {
            (from..to).contains(&minute) && self.days.contains(&today)
        } else {
            minute >= from && self.days.contains(&today)
                || minute < to && self.days.contains(&yesterday)
        }
    }
}

/// A range of minutes of a day. If the end is not after the beginning, it is on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: i16,
    to: i16,
}

impl Hours {
    pub const WHOLE_DAY: Self = Self { from: 0, to: minute(24, 0) };

    /// Parses `HH:MM-HH:MM`; the end of a day is `24:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse::<i8>().ok())?
        };
        let time = |text: &str| {
            let (hour, minutes) = text.trim().split_once(':')?;
            let time = minute(number(hour)?, number(minutes)?);
            (number(minutes)? < 60 && time <= Self::WHOLE_DAY.to).then_some(time)
        };
        let (from, to) = text.split_once('-')?;
        let hours = Self { from: time(from)?, to: time(to)? };
        (hours.from != hours.to && hours.from < Self::WHOLE_DAY.to).then_some(hours)
    }
}

const fn minute(hour: i8, minute: i8) -> i16 {
    hour as i16 * 60 + minute as i16
}

#[cfg(test)]
mod tests {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};

    use super::*;

    fn schedule(days: &[Weekday], hours: &str, time_zone: &str, min_idle: usize) -> Schedule {
        Schedule {
            days: days.to_vec(),
            hours: Hours::parse(hours).unwrap(),
            time_zone: TimeZone::get(time_zone).unwrap(),
            min_idle,
        }
    }

    /// Checks whether it applies at each of these times.
    fn expect(schedule: &Schedule, times: &[(&str, bool)]) {
        for (time, expected) in times {
            assert_eq!(schedule.applies(time.parse().unwrap()), *expected, "{time}");
        }
    }

    #[test]
    fn hours_of_weekdays_are_local_in_summer_and_winter() {
        let weekdays = [Monday, Tuesday, Wednesday, Thursday, Friday];
        let schedule = schedule(&weekdays, "08:00-18:00", "Europe/Berlin", 3);
        expect(
            &schedule,
            &[
                // A Wednesday in winter, an hour ahead of UTC, and one in summer.
                ("2025-01-15T06:59:59Z", false),
                ("2025-01-15T07:00:00Z", true),
                ("2025-01-15T16:59:59Z", true),
                ("2025-01-15T17:00:00Z", false),
                ("2025-07-16T05:59:59Z", false),
                ("2025-07-16T06:00:00Z", true),
                ("2025-07-16T16:00:00Z", false),
                // A Saturday.
                ("2025-01-18T10:00:00Z", false),
            ],
        );
    }

    #[test]
    fn a_range_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let schedule = schedule(&[Friday], "22:00-06:00", "America/New_York", 1);
        expect(
            &schedule,
            &[
                ("2025-01-17T00:00:00-05:00", false),
                ("2025-01-17T21:59:00-05:00", false),
                ("2025-01-17T22:00:00-05:00", true),
                ("2025-01-18T05:59:00-05:00", true),
                ("2025-01-18T06:00:00-05:00", false),
                ("2025-01-18T22:00:00-05:00", false),
            ],
        );
    }

    #[test]
    fn daylight_saving_time_is_followed() {
        // Clocks go forward from 02:00 to 03:00, and back from 03:00 to 02:00.
        let gap = schedule(&[Sunday], "02:30-04:00", "Europe/Berlin", 1);
        expect(
            &gap,
            &[
                ("2025-03-30T00:59:59Z", false),
                ("2025-03-30T01:00:00Z", true),
                ("2025-03-30T01:59:59Z", true),
                ("2025-03-30T02:00:00Z", false),
            ],
        );
        let twice = schedule(&[Sunday], "02:00-02:30", "Europe/Berlin", 1);
        expect(
            &twice,
            &[
                ("2025-10-26T00:00:00Z", true),
                ("2025-10-26T00:30:00Z", false),
                ("2025-10-26T01:00:00Z", true),
                ("2025-10-26T01:30:00Z", false),
            ],
        );
        // The night is an hour shorter, and still ends at six.
        let night = schedule(&[Saturday], "22:00-06:00", "Europe/Berlin", 1);
        expect(&night, &[("2025-03-30T03:59:59Z", true), ("2025-03-30T04:00:00Z", false)]);
    }

    #[test]
    fn the_first_that_applies_wins_and_outside_of_all_the_pools_own_number_does() {
        let timetable = Timetable {
            pool: 0,
            schedules: vec![
                schedule(&[Monday], "09:00-10:00", "UTC", 0),
                schedule(&[Monday], "08:00-18:00", "UTC", 5),
            ],
            otherwise: 2,
        };
        let at = |time: &str| {
            let time: Timestamp = time.parse().unwrap();
            timetable.min_idle(u64::try_from(time.as_millisecond()).unwrap())
        };
        assert_eq!(at("2025-01-13T08:30:00Z"), 5);
        assert_eq!(at("2025-01-13T09:30:00Z"), 0);
        assert_eq!(at("2025-01-13T18:00:00Z"), 2);
        assert_eq!(timetable.min_idle(u64::MAX), 2);
    }

    #[test]
    fn hours_are_two_different_times_of_a_day() {
        assert_eq!(Hours::parse("00:00-24:00"), Some(Hours::WHOLE_DAY));
        assert!(Hours::parse("18:30 - 00:00").is_some());
        for text in [
            "",
            "8-18",
            "8:00-18:00",
            "08:00",
            "08:60-09:00",
            "08:00-24:01",
            "24:00-01:00",
            "08:00-08:00",
            "-8:00-09:00",
            "08:00-+9:00",
        ] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
    }
}
