//! What every saga and machine is checked for.

/// The longest name of a saga or machine, and of a timer.
const NAME_BYTES_MAX: usize = 100;

/// Says what is wrong with a stored name.
pub(crate) fn name_fault(name: &str) -> Option<String> {
    let is_usable = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    let fault = "its name must be 1 to 100 visible ASCII characters";
    (!is_usable).then(|| fault.to_owned())
}
