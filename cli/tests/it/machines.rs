//! Machines, drawn from what hosts stored.

use std::time::Duration;

use crate::parcels::{self, Release, drawings};
use crate::scene::{Scene, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_listed_and_drawn_as_its_host_runs_it() {
    let (scene, store) = Scene::new().await;
    let none = scene.run(&["machines", "list"]);
    assert!(none.out.contains("no host described a machine"), "{none:?}");

    let host = parcels::host(store, Release::Current).await;
    let list = scene.run(&["machines", "list"]);
    let line = list.out.lines().nth(1).unwrap_or_default().to_owned();
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(cells[..5], ["parcel", "parcels", "2", "3", "1"], "{line}");
    assert!(line.ends_with("carrier"), "{line}");

    let [mermaid, dot] = drawings();
    let page = include_str!("../../../docs/operations.md");
    assert!(page.contains(&mermaid), "the page shows another: {mermaid}");
    let shown = scene.run(&["machines", "show", "parcel"]);
    assert_eq!((shown.out, shown.err), (mermaid, String::new()));
    let shown = scene.run(&["machines", "show", "parcel", "--format", "dot"]);
    assert_eq!(shown.out, dot);
    let file = scene.file();
    let url = [
        "machines",
        "show",
        "parcel",
        "--url",
        file.to_str().unwrap(),
    ];
    assert_eq!(run(&url).out, scene.run(&url[..3]).out);
    let json = scene.json(&["machines", "show", "parcel"]);
    assert_eq!(json["machines"][0]["hosts"][0]["name"], "carrier");
    let states = &json["machines"][0]["description"]["states"];
    assert_eq!(*states, serde_json::json!(["moving", "lost"]));
    assert_eq!(json, scene.json(&["machines", "list"]));
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_releases_of_a_machine_are_told_apart() {
    let (scene, store) = Scene::new().await;
    let earlier = parcels::host(store.clone(), Release::Earlier).await;
    let current = parcels::host(store, Release::Current).await;
    let json = scene.json(&["machines", "list"]);
    assert_eq!(json["machines"].as_array().unwrap().len(), 2, "{json}");
    let shown = scene.run(&["machines", "show", "parcel"]);
    assert!(shown.err.contains("other versions"), "{shown:?}");
    let hosts = scene.run(&["hosts"]);
    let fact = "! live hosts of endpoint `parcels` run `parcel` in different versions";
    assert!(hosts.out.contains(fact), "{hosts:?}");
    assert!(
        hosts
            .out
            .contains("2 states, 4 transitions, data of version"),
        "{hosts:?}"
    );
    let skew = &scene.json(&["hosts"])["machine_skew"][0];
    let known = skew["known"].as_array().unwrap();
    assert_eq!((known.len(), &skew["machine"]), (2, &"parcel".into()));
    let digest = |at: usize| known[at]["definition"]["digest"].as_str().unwrap();
    assert_ne!(digest(0), digest(1), "{skew}");
    for host in [earlier, current] {
        assert!(host.stop(Duration::from_secs(10)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_described_is_not_found() {
    let (scene, store) = Scene::new().await;
    let host = crate::scene::host(store).await;
    let shown = scene.run(&["machines", "show", "../parcel\u{1b}[2J"]);
    assert_eq!(shown.code, 3, "{shown:?}");
    assert!(shown.err.contains("sagabus machines list"), "{shown:?}");
    let odd = scene.run(&["machines", "show", "parcel", "--format", "svg"]);
    assert_eq!(odd.code, 2, "{odd:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
}
