//! Runs that were thought up, step by step.

use sagabus_model::{
    Call, Decided, Message, OfMessage, OfRow, Outgoing, Published, Written, Wrote,
};

const FIRST: u64 = 1;
const SECOND: u64 = 2;

/// Takes every step; says at which one the model did not go along.
fn follow(mut message: Message, steps: &[OfMessage]) -> Result<bool, usize> {
    for (at, step) in steps.iter().enumerate() {
        message.see(step).map_err(|_| at)?;
    }
    Ok(message.may_be_done())
}

fn follow_row(steps: &[OfRow]) -> Result<bool, usize> {
    let mut row = Outgoing::default();
    for (at, step) in steps.iter().enumerate() {
        row.see(step).map_err(|_| at)?;
    }
    Ok(row.may_be_done())
}

fn brought() -> Message {
    Message::new(false, 0)
}

fn called(held: u64, wrote: Wrote, call: Call) -> OfMessage {
    OfMessage::Called(vec![held], wrote, call, true)
}

fn heard(held: u64, wrote: Wrote, decided: Decided) -> OfMessage {
    called(held, wrote, Call::Heard(decided))
}

const EFFECT: Wrote = Wrote::Effect(None);

#[test]
fn a_message_is_committed_and_acked() {
    let steps = [
        OfMessage::Received(FIRST),
        heard(FIRST, EFFECT, Decided::Committed),
        OfMessage::Acked(FIRST, true),
    ];
    assert_eq!(follow(brought(), &steps), Ok(true));
    assert_eq!(follow(brought(), &steps[..1]), Ok(false), "not yet");
}

#[test]
fn an_ack_before_the_commit_is_no_step() {
    let steps = [OfMessage::Received(FIRST), OfMessage::Acked(FIRST, true)];
    assert_eq!(follow(brought(), &steps), Err(1));
}

#[test]
fn a_copy_is_a_duplicate_and_never_a_second_effect() {
    let begun = [
        OfMessage::Received(FIRST),
        OfMessage::Received(SECOND),
        heard(FIRST, EFFECT, Decided::Committed),
    ];
    let duplicate = heard(SECOND, EFFECT, Decided::Duplicate);
    let steps = [&begun[..], &[duplicate]].concat();
    assert_eq!(follow(brought(), &steps), Ok(true));
    let again = heard(SECOND, EFFECT, Decided::Committed);
    let steps = [&begun[..], &[again]].concat();
    assert_eq!(follow(brought(), &steps), Err(3));
}

#[test]
fn a_version_that_has_moved_is_a_conflict() {
    let steps = |decided| {
        [
            OfMessage::Received(FIRST),
            OfMessage::Moved(1),
            heard(FIRST, Wrote::Effect(Some(0)), decided),
        ]
    };
    assert_eq!(follow(brought(), &steps(Decided::Conflict)), Ok(false));
    assert_eq!(follow(brought(), &steps(Decided::Committed)), Err(2));
}

#[test]
fn a_commit_in_doubt_is_made_again_before_the_ack() {
    let doubt = |call| [OfMessage::Received(FIRST), called(FIRST, EFFECT, call)];
    let ack = [OfMessage::Acked(FIRST, true)];
    for (call, answer) in [
        (Call::Unheard(Decided::Committed), Decided::Duplicate),
        (Call::Unmade, Decided::Committed),
    ] {
        let again = [heard(FIRST, EFFECT, answer)];
        let steps = [&doubt(call)[..], &again, &ack].concat();
        assert_eq!(follow(brought(), &steps), Ok(true), "{call:?}");
        let steps = [&doubt(call)[..], &ack].concat();
        assert_eq!(follow(brought(), &steps), Err(2), "{call:?}");
    }
}

#[test]
fn a_late_commit_lands_once() {
    let late = [
        OfMessage::Received(FIRST),
        called(FIRST, EFFECT, Call::Later),
        OfMessage::Died(FIRST),
    ];
    let landed = [OfMessage::Landed(EFFECT, Decided::Committed, true)];
    let steps = [&late[..], &landed].concat();
    assert_eq!(follow(brought(), &steps), Ok(true));
    let steps = [&late[..], &landed, &landed].concat();
    assert_eq!(follow(brought(), &steps), Err(4));
}

#[test]
fn a_row_is_claimed_under_its_next_epoch_and_with_its_failures() {
    let steps = |epoch, failures| {
        [
            OfMessage::Claimed(FIRST, 1, 0),
            heard(FIRST, Wrote::Released(Some(1)), Decided::Committed),
            OfMessage::Claimed(SECOND, epoch, failures),
        ]
    };
    let row = || Message::new(true, 0);
    assert_eq!(follow(row(), &steps(2, 1)), Ok(false));
    assert_eq!(follow(row(), &steps(1, 1)), Err(2), "an old epoch");
    assert_eq!(follow(row(), &steps(2, 0)), Err(2), "a forgotten failure");
}

#[test]
fn a_row_goes_after_its_confirm() {
    let born = [OfRow::Written(Written::Heard(Some(FIRST)))];
    let published = |how| [OfRow::Published(vec![FIRST], how)];
    let end = [OfRow::Deleted(FIRST), OfRow::Delivered];
    let steps = [&born[..], &published(Published::Confirmed), &end].concat();
    assert_eq!(follow_row(&steps), Ok(true));
    for how in [Published::Unheard, Published::Refused] {
        let steps = [&born[..], &published(how), &end].concat();
        assert_eq!(follow_row(&steps), Err(2), "{how:?}");
    }
    let steps = [&born[..], &end].concat();
    assert_eq!(follow_row(&steps), Err(1), "not even published");
}

#[test]
fn nothing_is_published_after_a_doubt() {
    let steps = [
        OfRow::Written(Written::Unmade),
        OfRow::Published(vec![FIRST], Published::Confirmed),
    ];
    assert_eq!(follow_row(&steps), Err(1));
}
