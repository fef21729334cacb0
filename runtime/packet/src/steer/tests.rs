use super::*;
use crate::table::Peer;

/// Answers with peer 7 this many times, then fails.
struct Answers(usize);

impl Steer for Answers {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        self.0 = self.0.checked_sub(1).ok_or("out of fuel")?;
        answers.extend(destinations.iter().map(|_| Some(7)));
        Ok(())
    }
}

impl Transform for Answers {
    fn encapsulate(
        &mut self,
        _: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        Ok((bytes.to_vec(), lengths.to_vec()))
    }

    fn decapsulate(
        &mut self,
        _: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        Ok((bytes.to_vec(), lengths.to_vec()))
    }
}

/// Omits the answer for the last packet.
struct Forgetful;

impl Steer for Forgetful {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        answers.extend(destinations[1..].iter().map(|_| None));
        Ok(())
    }
}

fn plugin(answers: usize) -> Steering {
    Steering::Plugin { plugin: Box::new(Answers(answers)), until: None }
}

fn table() -> Table {
    Table::new(vec![Peer {
        endpoints: vec!["192.0.2.1".parse().unwrap()],
        subnets: vec!["10.244.1.0/24".parse().unwrap()],
    }])
}

fn steer(steering: &mut Steering, now: Instant) -> (By, Option<String>, Vec<Option<u32>>) {
    let destinations = ["10.244.1.2", "10.244.2.2"].map(|address| address.parse().unwrap());
    let mut answers = Vec::new();
    let (by, reason) = steering.steer(&table(), &destinations, &mut answers, now);
    (by, reason, answers)
}

#[test]
fn table_replaces_failed_plugin_for_limited_time() {
    let (mut steering, now) = (plugin(1), Instant::now());
    assert_eq!(steer(&mut steering, now), (By::Plugin, None, vec![Some(7), Some(7)]));
    let reason = Some("out of fuel".to_owned());
    assert_eq!(steer(&mut steering, now), (By::Table, reason, vec![Some(0), None]));
    let late = now + FALLBACK - Duration::from_millis(1);
    assert_eq!(steer(&mut steering, late), (By::Table, None, vec![Some(0), None]));
    assert_eq!(steer(&mut steering, now + FALLBACK), (By::Nobody, None, vec![]));
}

#[test]
fn repeatedly_failing_plugins_do_not_extend_fallback() {
    let (mut steering, now) = (plugin(0), Instant::now());
    steer(&mut steering, now);
    steering.replace(plugin(0));
    assert_eq!(steer(&mut steering, now + FALLBACK / 2).0, By::Table);
    steering.replace(plugin(0));
    steering.replace(plugin(0));
    assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Nobody);
    // A working instance does extend it.
    steering.replace(plugin(1));
    assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Plugin);
    assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Table);
}

#[test]
fn failure_during_fallback_does_not_extend_it() {
    let (mut steering, now) = (plugin(0), Instant::now());
    steering.fail(now);
    steering.fail(now + FALLBACK / 2);
    assert_eq!(steer(&mut steering, now + FALLBACK).0, By::Nobody);
}

#[test]
fn failed_transform_has_no_fallback() {
    let plugin = Box::new(Answers(0));
    let (mut steering, now) = (Steering::Transform { plugin, overhead: 8 }, Instant::now());
    let reason = Some("out of fuel".to_owned());
    assert_eq!(steer(&mut steering, now), (By::Nobody, reason, vec![]));
    assert_eq!(steer(&mut steering, now), (By::Nobody, None, vec![]));
}

#[test]
fn too_few_answers_are_a_failure() {
    let (mut steering, now) =
        (Steering::Plugin { plugin: Box::new(Forgetful), until: None }, Instant::now());
    let (by, reason, answers) = steer(&mut steering, now);
    assert_eq!((by, answers), (By::Table, vec![Some(0), None]));
    assert_eq!(reason.as_deref(), Some("1 answers for 2 packets"));
}
