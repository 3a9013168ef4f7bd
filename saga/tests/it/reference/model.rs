//! What a till must do, written without a type of ours: a plain struct and a match.

/// One life of a till, from the message that begins it to the one that ends it.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) state: Option<&'static str>,
    pub(super) sum: i64,
    /// The number of the hold whose end is waited for.
    pub(super) armed: Option<u32>,
    /// Numbers of the holds whose end came.
    pub(super) fired: Vec<u32>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) applied: u32,
    pub(super) kept: u32,
    pub(super) armed: u32,
    pub(super) fired: u32,
    pub(super) cancelled: u32,
}

/// A till through all its lives.
#[derive(Debug, Default)]
pub(super) struct Till {
    pub(super) life: Life,
    /// What the book must say, in any order.
    pub(super) lines: Vec<String>,
    pub(super) sums: Sums,
}

impl Till {
    /// Takes one message. `Err` where a till would never have taken it.
    pub(super) fn take(&mut self, word: &str, number: Option<u32>) -> Result<(), String> {
        let known = number.ok_or("a message without a number");
        let life = &mut self.life;
        match (life.state, word) {
            (None, "add") => {
                *life = Life {
                    state: Some("open"),
                    sum: i64::from(known?),
                    ..Life::default()
                };
                self.lines.push(format!("add {}", known?));
            }
            (Some(_), "add") => {
                life.sum += i64::from(known?);
                self.lines.push(format!("add {}", known?));
            }
            (Some(_), "hold") => {
                life.state = Some("held");
                self.sums.cancelled += u32::from(life.armed.is_some());
                self.sums.armed += 1;
                life.armed = Some(known?);
            }
            (Some("held"), "release") => {
                life.state = Some("open");
                self.sums.cancelled += u32::from(life.armed.is_some());
                life.armed = None;
            }
            (Some("open"), "release") => {}
            (Some("open"), "poke") => {
                self.sums.kept += 1;
                return Ok(());
            }
            (Some("held"), "poke") => self.lines.push(format!("poke {}", known?)),
            (Some("held"), "due") => {
                let number = life.armed.take().ok_or("nothing was armed, and it fired")?;
                life.state = Some("open");
                life.fired.push(number);
                self.sums.fired += 1;
                self.lines.push(format!("due {number}"));
            }
            (Some(_), "close") => {
                life.state = None;
                self.sums.cancelled += u32::from(life.armed.is_some());
                life.armed = None;
                self.lines.push(format!("close {}", known?));
            }
            (state, word) => return Err(format!("`{word}` was taken in state {state:?}")),
        }
        self.sums.applied += 1;
        Ok(())
    }

    /// Says whether a message is only kept for later in the state at hand.
    pub(super) fn keeps(&self, word: &str) -> bool {
        (self.life.state, word) == (Some("open"), "poke")
    }
}
