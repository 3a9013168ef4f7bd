//! The codes that errors for people end with, like `[SB0114]`, and what there is to say about each
//! beyond one line. The one table of them; `docs/errors.md` and `sagabus explain` are made from it.

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The code, for ever: one that is not needed any more is not given to another error.
    pub code: &'static str,
    /// What happened, in a few words.
    pub title: &'static str,
    /// Why that is an error.
    pub why: &'static str,
    /// What to do, step by step where there are several.
    pub remedy: &'static str,
}

/// Returns what a code stands for, in whatever case and with or without brackets.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    let code = code.trim().trim_start_matches('[').trim_end_matches(']');
    ALL.iter().find(|one| one.code.eq_ignore_ascii_case(code))
}

/// Finds the code that a text ends with.
pub fn code_in(text: &str) -> Option<&'static Explanation> {
    let (_, behind) = text.rsplit_once("[SB")?;
    let digits = behind.get(..4)?;
    ALL.iter().find(|one| &one.code[2..] == digits)
}

macro_rules! explanations {
    ($($code:literal $title:literal: $why:literal -> $remedy:literal;)*) => {
        /// Every code, in order. 01xx: how a host is put together. 02xx: why one does not start.
        /// 03xx: what a command line was asked. 04xx: what an operator wants.
        /// 05xx: why a body is not read.
        pub const ALL: &[Explanation] = &[$(Explanation {
            code: $code,
            title: $title,
            why: $why,
            remedy: $remedy,
        },)*];
    };
}

explanations! {
    "SB0101" "an endpoint's name is not usable":
        "The name is stored with every message and becomes a queue or a group on brokers, whose \
         names take few characters."
        -> "Take 1 to 100 characters out of `a-z`, `0-9`, `.`, `_` and `-`. The name is for ever: a \
            renamed endpoint is a new one, and what waits for the old one stays there.";
    "SB0102" "an endpoint is registered twice":
        "Two lists of handlers under one name would take turns on its messages."
        -> "Put all handlers of the endpoint into one `.endpoint(name, |e| ..)` call.";
    "SB0103" "a transport's name is not usable":
        "The name is stored in rows of the outbox, before the address. `default` is the one that \
         has no name."
        -> "Take 1 to 100 characters out of `a-z`, `0-9`, `.`, `_` and `-`, and not `default`.";
    "SB0104" "two transports have one name":
        "A row names its transport; with two of one name nobody could tell by which it goes."
        -> "Give one of them another name in `.transport_named(..)`.";
    "SB0105" "a transport is named that the host does not have":
        "An endpoint reads from it, or a message type goes by it, and nobody could carry that."
        -> "Add it with `.transport_named(name, ..)`, or correct the name in `.reads_from(..)` or \
            `.route::<M>(..)`.";
    "SB0106" "a command goes by one transport and its owner reads from another":
        "It would arrive where nobody looks."
        -> "Make both the same: `.route::<M>(..)` says by which it goes, `.reads_from(..)` from \
            which its owner reads.";
    "SB0107" "an endpoint has no handler":
        "What came for it would be a dead letter at once."
        -> "Add a handler, saga or machine, or remove the endpoint.";
    "SB0108" "an endpoint has two subscribers for one message type":
        "A message is handled once per endpoint: which of the two would it be?"
        -> "Give one of them an endpoint of its own; an event reaches both.";
    "SB0109" "an event is announced that this host does not handle":
        "What is announced goes to the broker first and touches no database; the service learns of \
         it by handling it. Unhandled, its state and what it told the world would differ for ever."
        -> "Add a handler for it to an endpoint of this host that reads from the same transport, or \
            `publish` it.";
    "SB0110" "an order is promised that the transport does not keep":
        "Messages of one key would overtake each other before they arrive."
        -> "Declare `Order::Unordered`, or let the endpoint read from a transport that keeps order: \
            Kafka, RabbitMQ with slots, or the database itself.";
    "SB0111" "a command has two owners in one host":
        "A command asks one owner. Two would do the work twice or by turns."
        -> "Remove one handler, or make the message an event.";
    "SB0112" "a message type's name is not usable":
        "The name travels in headers and topics."
        -> "Take 1 to 200 visible ASCII characters, for example `orders.order-placed`.";
    "SB0113" "a handler needs a value that the host was not given":
        "It would fail with its first message."
        -> "The error names the value and the call that gives it, mostly `.state(..)` or \
            `.store(..)`.";
    "SB0114" "a host has no store":
        "Everything that is promised rests on a database: that a message is handled once, that \
         state and messages move together."
        -> "Give it one: `.store(SqliteStore::open(\"service.db\").await?)` or \
            `.store(PgStore::connect(&url).await?)`; in tests `.store(MemoryStore::new())`.";
    "SB0115" "messages are forgotten sooner than they may come again":
        "A message is recognised by its inbox row. If that is swept while the message may still be \
         redelivered or retried, its effects happen twice."
        -> "Raise `.retention(..)`, or shorten the retries of the endpoint.";
    "SB0116" "what recurs is not usable as it was declared":
        "Its cron expression, time zone, name or message would never work, and would say so only \
         when its time has come."
        -> "The error says what is wrong. Five fields (minute, hour, day of month, month, day of \
            week) or six with the second first; zones by their IANA name: `docs/scheduling.md`.";
    "SB0117" "two messages recur under one name":
        "The name is the schedule's row; two declarations would take turns on it."
        -> "Give one of them another name.";
    "SB0118" "a saga or machine is inconsistent":
        "It would stop in a state that nothing leaves, or meet a message that it cannot place."
        -> "The error names state, event and the line that declares it, and what to change.";
    "SB0119" "an endpoint declares something of what it does not take":
        "`.rehearses::<M>()` and `.retry_for::<M>(..)` say something of a handler. Without the handler \
         they say nothing, and mostly the type is mistaken."
        -> "Add the handler of `M` to this endpoint, or remove what is declared of `M`.";
    "SB0120" "a keyring is not usable":
        "A key has an id, which travels with what it seals, and 32 bytes that nobody can guess."
        -> "Write a line per key: its id, a space, 64 hexadecimal digits (`openssl rand -hex 32`); \
            the key that seals comes first, those that only open below it.";
    "SB0121" "a message type is to be sealed without a key":
        "It would be sent as it is, against what was declared."
        -> "Give the host its keys with `.protects(Keyring::parse(..)?, Protection::..)`.";
    "SB0122" "a redaction is not usable":
        "A pointer that points nowhere would mask nothing."
        -> "Name fields by JSON pointers such as `/card/number` or `/guests/*/name`, or mask all \
            with `Redaction::body()`.";
    "SB0123" "sent messages are kept for longer than they are recognised":
        "Whoever has handled a message knows it by its inbox row. Once that is swept, a copy that is \
         sent again has its effects a second time."
        -> "Shorten `.keep_sent(..)`, or raise the inbox retention of `.retention(..)`, here and in \
            the services that handle the messages.";
    "SB0201" "a host cannot use its store":
        "The line below says why: the database is away, refuses, or is not ready."
        -> "Follow the code or the text of the cause.";
    "SB0202" "a host cannot use a transport":
        "The broker is there and refuses what the host needs of it. One that is away ends no start: \
         the host says so in its log and its health, and uses it when it comes."
        -> "The line below says what to do: log-in, vhost, permission, a queue or topic that differs.";
    "SB0203" "a host was run twice":
        "A host is used up when it starts."
        -> "Build another one.";
    "SB0204" "the schema is missing":
        "Tables are made when you say so, never by a host that starts: the role that runs services \
         need not be allowed to."
        -> "Run `sagabus schema migrate`, or `store.migrate()` once, or hand the statements of \
            `sagabus schema print` to whoever may run them.";
    "SB0205" "a part of the schema is missing":
        "Something dropped tables or functions, or a restore was partial."
        -> "Restore the database from a backup. If nothing in it is wanted, drop the schema and \
            migrate.";
    "SB0206" "the schema is older than this release":
        "The host would call what is not there."
        -> "Run `sagabus schema migrate` before the new release starts. Hosts of the release before \
            go on beside it.";
    "SB0207" "the schema is newer than this release":
        "A newer release has migrated it, and what this one writes might break a rule that it does \
         not know."
        -> "Run the newer release of the service, and of the command line.";
    "SB0208" "the database takes no writes":
        "It is a replica, or `default_transaction_read_only` is on."
        -> "Connect to the primary: add `target_session_attrs=read-write`, or name its host.";
    "SB0209" "the server is too old":
        "sagabus uses statements that older PostgreSQL servers do not have."
        -> "Use PostgreSQL 15 or newer.";
    "SB0210" "a migration is refused":
        "The role may not create the schema or its tables."
        -> "Grant it, or run the statements of `sagabus schema print` as a role that may.";
    "SB0211" "PostgreSQL refuses the connection":
        "Role, password or database is wrong; waiting does not help, so nobody waits."
        -> "Check the URL against `psql` with the same one.";
    "SB0212" "a database URL cannot be read":
        "It is not repeated in the error, because it may hold a password."
        -> "Write `postgres://user:password@host:5432/database`; percent-encode what is special in \
            a password.";
    "SB0213" "a command has another owner in this database":
        "Another host registered an endpoint for it. Two owners would share its messages by chance."
        -> "Remove one handler, or make the message an event. If the other endpoint is no more: \
            `sagabus endpoints remove NAME --type TYPE`.";
    "SB0214" "a schedule belongs to another host in this database":
        "Two services declared one name; both would write its row."
        -> "Give one of them another name. If the other service is no more: `sagabus schedules \
            remove NAME`.";
    "SB0215" "a schedule cannot be read":
        "A newer release wrote it, or somebody did by hand."
        -> "Run the newer release, or `sagabus schedules remove NAME`: the next start declares it \
            anew.";
    "SB0216" "a SQLite file cannot be used where it is":
        "The path is a directory, its folder is missing, or the file system keeps no write-ahead \
         log (network file systems do not)."
        -> "Give the path of a file in an existing folder on a local disk.";
    "SB0217" "a broker's address or setting cannot be used":
        "It is checked before anything is sent, so that a slip is told where it was made. A password \
         is never repeated."
        -> "RabbitMQ: `amqp://user:password@host:5672/vhost`, with special characters \
            percent-encoded. Kafka: `host:port`, several with commas, without scheme, user or \
            password. The error names any other setting with the values that it takes.";
    "SB0218" "a broker does not let this user in":
        "The broker answered, and knows the user not, or not with this password or mechanism."
        -> "Try the same name and password with the broker's own tools: `rabbitmqctl \
            authenticate_user`, or `kafka-broker-api-versions.sh --command-config`. Then mend the \
            URL, or `security` of `KafkaConfig`.";
    "SB0219" "a virtual host of RabbitMQ cannot be used":
        "It does not exist, or the user may not enter it."
        -> "`rabbitmqctl add_vhost VHOST`, `rabbitmqctl set_permissions -p VHOST USER '.*' '.*' \
            '.*'`; the vhost is the path of the URL, and `/` is written `%2f`.";
    "SB0220" "a broker denies a permission":
        "The user is let in, but may not declare, read or write what this host needs."
        -> "The error names the queue, topic or group. RabbitMQ: `rabbitmqctl set_permissions` \
            (configure, write, read). Kafka: DESCRIBE, READ and WRITE on topics, READ on the group, \
            IDEMPOTENT_WRITE on the cluster. Where hosts must not create anything, provision first \
            and use `TopologyMode::Verify` or `Creation::Never`.";
    "SB0221" "a broker and this host do not agree on TLS":
        "One speaks TLS and the other does not, or the certificate is not trusted, has run out or is \
         of another name, or this build has no TLS."
        -> "RabbitMQ: `amqps://` and `ca_certificates`. Kafka: `security`, the files of `Tls`, and \
            the feature `kafka-tls`. Look at what the port offers with `openssl s_client -connect \
            HOST:PORT`.";
    "SB0222" "something on the broker has other properties":
        "A queue or exchange of this name was declared otherwise, by an earlier configuration or by \
         somebody else. Brokers do not change it."
        -> "Give back the setting that it was declared with, or stop all hosts, let the queue run \
            empty, delete it, and start again; the host declares it anew.";
    "SB0223" "an endpoint or command belongs to somebody else on this broker":
        "Two databases that read one queue or topic would share its messages by chance, and each \
         would see half."
        -> "Give the endpoint another name, remove one of two handlers, or connect the host to the \
            store that owns it. The error says how to hand it over for good.";
    "SB0224" "a queue, exchange or topic is missing":
        "This host only verifies or may not create, or somebody deleted it."
        -> "Start the host once with a user that may create (`TopologyMode::Declare`, \
            `Creation::AsNeeded`), or create it by the command in the error.";
    "SB0225" "a topic would lose messages, or cannot be made":
        "Its clean-up, retention, copies or record size do not fit what is promised of messages in \
         it, or the cluster refuses a topic as this host needs it."
        -> "The error names the setting, and mostly the command that changes it.";
    "SB0226" "the database does not answer":
        "It cannot be reached, is busy, or did not answer in time. Of a change, `sagabus audit` says \
            whether it was made."
        -> "See whether the server runs and lets this machine in: host, port, password, TLS; its log \
            says why not. Then do the same again.";
    "SB0301" "no database was named":
        "The command line looks into one database, and guesses none."
        -> "Give `--store`, or set `SAGABUS_STORE`, or write `store = \"..\"` into `sagabus.toml`: a \
            SQLite file, or `postgres://user:password@host/database`.";
    "SB0302" "no store speaks this kind of URL":
        "sagabus keeps its rows in PostgreSQL or SQLite."
        -> "Give `postgres://user:password@host/database` or the path of a SQLite file.";
    "SB0303" "there is no such file":
        "Reading commands make no file: a slip in a path would show an empty database, and all \
         would seem well."
        -> "Give the path of the service's file. `sagabus schema migrate` makes a new one.";
    "SB0304" "it is not said which are meant":
        "A change of many rows needs a selection that was meant."
        -> "Name ids, or give a filter, or say `--all`; one of these.";
    "SB0305" "a change was not confirmed":
        "Nobody was there to be asked, or the answer was no. Nothing was changed."
        -> "Add `--yes` to do it, or `--dry-run` to look first.";
    "SB0306" "a bulk change stopped half-way":
        "What was done is done, each step with its audit entry; nothing was done twice. It was \
            paused, by an operator or by failures, or its process could not go on."
        -> "`sagabus operations show ID` tells why; `sagabus operations resume ID` goes on with what \
            is left of what was meant at first.";
    "SB0307" "the configuration file cannot be used":
        "A slip in a name would be silence, so what the program does not know is an error. Values \
            are not repeated: one may hold a password."
        -> "The error names file and line. A file is TOML: `store`, `role`, `output` and `who`, at the \
            top or in a table `[profiles.NAME]`, and `profile = \"NAME\"` at the top.";
    "SB0308" "what was given cannot be used":
        "A file that cannot be read, or holds something else than what is wanted; or a word that \
            makes no sense here. Nothing was changed."
        -> "The error names what was given and says what is wrong with it; `--help` of the command has \
            an example.";
    "SB0401" "there is nothing by that id or name":
        "It was dealt with, swept, or never was."
        -> "The `list` of the same noun shows what there is.";
    "SB0402" "the change would harm what runs":
        "A host uses what would be removed, or something still waits for it."
        -> "The error says what to do first.";
    "SB0403" "nothing was changed":
        "It is so already, or a host is about to act on an earlier change."
        -> "Look again in a second.";
    "SB0404" "no host did what takes the service's code":
        "Rehearsing a message and moving an instance run in a live host of the endpoint; the command \
         line does not know your types. None took it, or the one that did has not answered."
        -> "`sagabus hosts` shows who runs the endpoint. Start one, or, where one is alive, look \
            whether it can reach the database; then ask again. What no host took in time is not \
            done later.";
    "SB0405" "nothing is kept of what was sent":
        "A row of the outbox is gone once its broker has confirmed it, unless a host declares that \
         what it sends is kept."
        -> "Declare `.keep_sent(Duration::from_secs(24 * 60 * 60))` on the hosts that send: from then \
            on a window can be sent again. What was sent before is with its broker and with who \
            handled it.";
    "SB0406" "somebody was faster":
        "A change is for what you saw, and it is not so any more: a message moved the instance, or \
            another operator was there first. Nothing was changed."
        -> "Look again, and decide anew.";
    "SB0407" "hosts could not use the new content":
        "What a message or an instance is given by hand is read by your code later, and nobody is there \
            then who could mend it. Nothing was changed."
        -> "The error says what is wrong with it. `--dry-run` shows before and after.";
    "SB0408" "the role may not do this":
        "`--role` or `SAGABUS_ROLE` says what you may do, so that a slip changes nothing."
        -> "Ask somebody who may, or say another role if that is you. What a server granted to a \
            login is another matter: `sagabus schema grants` prints that.";
    "SB0501" "a sealed body cannot be opened":
        "It is sealed with a key that is not at hand, or it was not sealed for this message: a seal \
         is bound to identity, type and the headers that matter, so a body that was altered, or put \
         into another message, opens nowhere. The message was not handled."
        -> "Unknown key: add it to the keyring (hosts: `.protects(..)`; command line: `--keyring`), \
            then redrive. Altered: find out who may write to the broker or the database; do not \
            redrive what nobody can vouch for.";
    "SB0502" "a message had to be sealed and is not":
        "Its type is declared `Protection::Required` here. Whoever sent it has no key, or does not \
         seal yet, or made it up."
        -> "Give the sender the keyring. While senders change over, declare `Protection::Sealed`, \
            redrive, and declare `Required` again when all of them seal.";
    "SB0503" "the body of a dead letter was not kept":
        "Its type is declared `never_in_dead_letters`, and it was not sealed. There is nothing left \
         to handle."
        -> "Discard it, and let its sender send it anew. Sealed bodies are kept: seal the type, and \
            the next one can be redriven.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let is_after = |pair: &[Explanation]| pair[0].code < pair[1].code;
        assert!(
            ALL.windows(2).all(is_after),
            "a code is twice, or out of order"
        );
        for one in ALL {
            let digits = one.code.strip_prefix("SB").unwrap_or_default();
            let is_number = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
            assert!(is_number, "{}", one.code);
            assert!(
                !one.why.is_empty() && !one.remedy.is_empty(),
                "{}",
                one.code
            );
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for text in ["SB0114", "sb0114", "[SB0114]", " SB0114 "] {
            assert_eq!(explain(text).map(|one| one.code), Some("SB0114"), "{text}");
        }
        for text in ["", "SB", "SB9999", "0114", "[SB", "SB01140"] {
            assert_eq!(explain(text), None, "{text}");
        }
        let text = "host `x` has no store; give it one [SB0114]: see there";
        assert_eq!(code_in(text).map(|one| one.code), Some("SB0114"));
        assert_eq!(code_in("[SBü123]"), None);
        assert_eq!(code_in("[SB01"), None);
    }
}
