//! RFC 3339 to and from microseconds since 1970: the only calendar that we need.

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
const DAY: i64 = 24 * 60 * 60 * SECOND;
/// The last microsecond of the year 9999, which is as far as RFC 3339 goes.
const LAST: i64 = 253_402_300_800 * SECOND - 1;

/// Writes `2026-11-21T12:40:00.000001Z`; `None` outside the years 1970 to 9999.
pub(crate) fn format(micros: i64) -> Option<String> {
    if !(0..=LAST).contains(&micros) {
        return None;
    }
    let (days, rest) = (micros / DAY, micros % DAY);
    let (year, month, day) = civil(days);
    let (seconds, fraction) = (rest / SECOND, rest % SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"
    ))
}

/// Reads any RFC 3339 time; `None` for other text. Digits beyond microseconds are dropped.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes().get(10)?, b'T' | b't' | b' ') {
        return None;
    }
    let [year, month, day] = numbers(date, '-')?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = numbers(whole, ':')?;
    let is_date = year <= 9999 && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second is read as the first second of the next minute.
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second - offset(zone)? * 60;
    Some(days(year, month, day) * DAY + seconds * SECOND + micros(fraction)?)
}

/// Splits into three numbers of digits only.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(number);
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Minutes east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'Z' | b'z' => return (zone.len() == 1).then_some(0),
        b'+' => 1,
        _ => -1,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// The first six digits after the point.
fn micros(fraction: &str) -> Option<i64> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number(format!("{fraction:0<6}").get(..6)?)
}

/// Days since 1970 of a date of the Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970 (`civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_795_264_800_123_456, "2026-11-21T12:40:00.123456Z"),
            (LAST, "9999-12-31T23:59:59.999999Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(format(micros).as_deref(), Some(text));
            assert_eq!(parse(text), Some(micros));
        }
        assert_eq!(format(-1), None);
        assert_eq!(format(LAST + 1), None);
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..146_097 {
            let micros = day * DAY + 1;
            assert_eq!(parse(&format(micros).unwrap()), Some(micros));
        }
    }

    #[test]
    fn other_forms_are_read() {
        let expected = parse("2026-11-21T12:40:00Z");
        for text in [
            "2026-11-21t12:40:00z",
            "2026-11-21 12:40:00.000Z",
            "2026-11-21T14:10:00+01:30",
            "2026-11-21T07:40:00.000000999-05:00",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T12:40:00",
            "2026-13-21T12:40:00Z",
            "2026-11-21T25:40:00Z",
            "2026-11-21T12:40:00.x5Z",
            "2026-11-21T12:40:00Zulu",
            "2026-11-21T12:40:00+99:00",
            "999999-1-1T12:40:00Z",
            "2026-11-21T+2:40:00Z",
            "2026-11-2\u{e9}T12:40:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
