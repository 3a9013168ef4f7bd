//! The configuration file: what it says, what comes before it, and what is wrong with one.

use std::path::PathBuf;

use crate::scene::{Scene, program, run};

/// Runs the program in the folder of a scene, with what its environment says.
fn run_in(
    scene: &Scene,
    environment: &[(&str, &str)],
    arguments: &[&str],
) -> (i32, String, String) {
    let mut program = program(arguments);
    let folder = scene.file().parent().unwrap().to_owned();
    program
        .current_dir(folder)
        .envs(environment.iter().copied());
    let ran = program.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        ran.status.code().unwrap(),
        text(ran.stdout),
        text(ran.stderr),
    )
}

fn write(scene: &Scene, text: &str) -> PathBuf {
    let file = scene.file().with_file_name("sagabus.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_comes_before_the_environment_and_that_before_the_file() {
    let (scene, _store) = Scene::with_failures(1).await;
    write(
        &scene,
        "store = 'nothing.db'\nrole = 'reader'\noutput = 'json'\nwho = 'file'\n\n\
         [profiles.shop]\nstore = 'shop.db'\nrole = 'operator'\n",
    );
    let (code, _, err) = run_in(&scene, &[], &["status"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("`nothing.db`"), "{err}");

    let (code, out, err) = run_in(&scene, &[], &["--profile", "shop", "outbox", "parked"]);
    assert_eq!(code, 0, "{err}");
    let parked: serde_json::Value = serde_json::from_str(&out).unwrap();
    let row = parked["rows"][0]["id"].to_string();

    // The role of the file's top; its store comes from the environment.
    let store = [("SAGABUS_STORE", "shop.db")];
    let discard = ["outbox", "discard", &row, "--yes"];
    let (code, _, err) = run_in(&scene, &store, &discard);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("role `reader` may not"), "{err}");

    // The environment names the profile, the command line comes before what it says.
    let profile = [("SAGABUS_PROFILE", "shop"), ("SAGABUS_WHO", "env")];
    let (code, _, err) = run_in(
        &scene,
        &profile,
        &[&discard[..], &["--role", "reader"]].concat(),
    );
    assert_eq!(code, 1, "{err}");
    let (code, out, err) = run_in(&scene, &profile, &[&discard[..], &["-o", "table"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("discarded 1 rows"), "{out}");
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][0]["who"], "env", "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_named_is_used_from_anywhere() {
    let (scene, _store) = Scene::new().await;
    let file = write(
        &scene,
        "profile = 'here'\n[profiles.here]\noutput = 'json'\n",
    );
    let (file, store) = (file.to_str().unwrap(), scene.file());
    let ran = run(&[
        "--config",
        file,
        "--store",
        store.to_str().unwrap(),
        "status",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with('{'), "{}", ran.out);
    assert_eq!(ran.err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_is_refused_with_its_line_and_no_value() {
    let (scene, _store) = Scene::new().await;
    let cases = [
        (
            "store = 'shop.db'\nrols = 'reader'\n",
            "line 2: nothing is called `rols`",
        ),
        (
            "role = 'postgres://a:secret@b'\n",
            "line 1: `role` is one of",
        ),
        ("profile = 'prod'\n", "has no profile `prod`; it has: none"),
        ("store = 'postgres://a:secret@b\n", "line 1: "),
    ];
    for (text, fact) in cases {
        write(&scene, text);
        let (code, out, err) = run_in(&scene, &[], &["status"]);
        assert_eq!((code, out.as_str()), (2, ""), "{text}: {err}");
        assert!(
            err.contains(fact) && err.contains("[SB0307]"),
            "{text}: {err}"
        );
        assert!(!err.contains("secret"), "{text}: {err}");
        // Who asks what the code means is answered all the same.
        let (code, _, err) = run_in(&scene, &[], &["explain", "SB0307"]);
        assert_eq!(code, 0, "{err}");
    }
    std::fs::write(scene.file().with_file_name("sagabus.toml"), [b'\n'; 70_000]).unwrap();
    let (code, _, err) = run_in(&scene, &[], &["status"]);
    assert_eq!(code, 2, "{err}");
    for arguments in [
        &["--config", "nowhere.toml", "status"][..],
        &["--config", "/", "status"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains("[SB0307]"), "{}", ran.err);
    }
    let ran = run(&["--profile", "prod", "status"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(
        ran.err.contains("there is no file `sagabus.toml`"),
        "{}",
        ran.err
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_others_may_read_is_warned_of() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    let (scene, _store) = Scene::new().await;
    let secret = "store = 'shop.db'\n[profiles.prod]\nstore = 'postgres://a:secret@b/c'\n";
    for (text, mode, is_told) in [
        (secret, 0o644, true),
        (secret, 0o640, true),
        (secret, 0o600, false),
        ("store = 'shop.db'\n", 0o644, false),
    ] {
        let file = write(&scene, text);
        set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let (code, _, err) = run_in(&scene, &[], &["status"]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(err.contains("chmod 600"), is_told, "{text} {mode:o}: {err}");
        assert!(!err.contains("secret"), "{err}");
    }
}
