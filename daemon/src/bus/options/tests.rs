use memcharge_policy::{MountOption, OnFull};

use super::*;

fn options(pairs: &[(&str, Value<'static>)]) -> Options {
    let own = |(key, value): &(&str, Value<'static>)| ((*key).to_owned(), value.try_to_owned().unwrap());
    pairs.iter().map(own).collect()
}

fn read(pairs: &[(&str, Value<'static>)]) -> Result<MountOptions> {
    let number = |name: &str| (name == "daemon").then_some(7);
    read_mount(&options(pairs), Accounts { user: &number, group: &number })
}

#[test]
fn every_option_has_its_type() {
    let read = read(&[
        ("Where", "/run/shared/m".into()),
        ("Target", "m.slice".into()),
        ("Persist", true.into()),
        ("Wait", false.into()),
        ("Backend", "redirect".into()),
        ("Options", vec!["nosuid", "ro"].into()),
        ("SizeMax", "50%".into()),
        ("InodesMax", NO_LIMIT.into()),
        ("Mode", 0o700u32.into()),
        ("Uid", "daemon".into()),
        ("Gid", 5u32.into()),
        ("OnFull", "enospc".into()),
        ("Reserve", 4096u64.into()),
        ("Reclaim", false.into()),
        ("DeadlineUSec", 5u64.into()),
        ("KillProtect", vec!["a*"].into()),
    ])
    .unwrap();
    assert!(read.persist);
    let fragment = read.fragment;
    assert_eq!(fragment.place.as_deref(), Some("/run/shared/m"));
    assert_eq!(fragment.options, Some(vec![MountOption::Nosuid, MountOption::Ro]));
    assert_eq!(fragment.size, Some(SizeCap::Percent(50)));
    assert_eq!(fragment.inodes, None);
    assert_eq!((fragment.mode, fragment.uid, fragment.gid), (Some(0o700), Some(7), Some(5)));
    assert_eq!(fragment.on_full, Some(OnFull::Enospc));
    assert_eq!(fragment.reserve, Some(Bytes(4096)));
    assert_eq!(fragment.deadline, Some(Duration::from_micros(5)));
    assert_eq!(fragment.kill.protect, Some(vec!["a*".to_owned()]));
}

#[test]
fn what_is_wrong_is_named() {
    for (key, value, message) in [
        ("Were", "x".into(), "there is no option Were; did you mean Where?"),
        ("sizemax", "x".into(), "there is no option sizemax; did you mean SizeMax?"),
        ("Where", true.into(), "Where: it must be a text (s), not of the D-Bus type `b`"),
        ("Reserve", 1u32.into(), "Reserve: it must be a number (t), not of the D-Bus type `u`"),
        ("Options", "ro".into(), "Options: it must be a list of texts (as), not of the D-Bus type `s`"),
        ("Uid", "nobody".into(), "Uid: there is no `nobody` on this system"),
        ("OnFull", "no".into(), "OnFull: `no` is not a value of on-full; give \"enospc\" or \"kill\""),
    ] {
        assert_eq!(read(&[(key, value)]).unwrap_err().to_string(), message);
    }
    let long = "x".repeat(MAX_TEXT + 1);
    assert!(read(&[("Where", long.into())]).is_err());
    let unknown = read(&[("Colour", 1u32.into())]).unwrap_err().to_string();
    assert!(unknown.starts_with("there is no option Colour; the options are Where, "), "{unknown}");
}

#[test]
fn a_policy_changes_by_what_can_change() {
    let read = |pairs: &[(&str, Value<'static>)]| read_policy(&options(pairs));
    let patch = read(&[("SizeMax", NO_LIMIT.into()), ("OnFull", "kill".into())]).unwrap();
    assert_eq!((patch.size, patch.on_full, patch.reserve), (Some(None), Some(OnFull::Kill), None));
    for (key, value, message) in [
        ("Where", "/x".into(), "Where cannot change while it is mounted; unmount it, and mount it again"),
        ("OnFul", "kill".into(), "there is no option OnFul; did you mean OnFull?"),
        ("DeadlineUSec", 0u64.into(), "`deadline` must be more than 0 and at most 60s"),
    ] {
        assert_eq!(read(&[(key, value)]).unwrap_err().to_string(), message);
    }
    let nothing = read(&[]).unwrap_err().to_string();
    assert!(nothing.starts_with("nothing shall change"), "{nothing}");
}

#[test]
fn a_query_is_bounded() {
    let read = |pairs: &[(&str, Value<'static>)]| read_query(&options(pairs));
    let query = read(&[("Mount", "m".into()), ("Since", 5u64.into()), ("Limit", 7u32.into())]).unwrap();
    assert_eq!(query, HistoryOptions { mount: Some("m".into()), since_usec: Some(5), limit: 7 });
    assert!(read(&[("Limit", 0u32.into())]).is_err());
    assert!(read(&[("Limit", 1001u32.into())]).is_err());
    assert!(read(&[("Since", "today".into())]).is_err());
    assert!(read(&[("Sinc", 5u64.into())]).is_err());
}

#[test]
fn there_is_an_end_to_options() {
    let many = (0..=MAX_OPTIONS).map(|i| (format!("k{i}"), Value::from(1u32).try_to_owned().unwrap()));
    assert!(read_unmount(&many.collect()).is_err());
    assert!(read_unmount(&options(&[("Lazy", true.into())])).unwrap());
    assert!(read_unmount(&options(&[("Layz", true.into())])).is_err());
}
