//! A stand-in for the store that proxies share: it reads a call's commands, and answers each line as a store would whose only proxy
//! this is. What it grants of a budget, and gives of a bucket, is no more than there is.

use super::Fault;

/// Millionths of a bucket's rate that this proxy may have: not all, so that its part of it is counted with what it costs.
const PART: u64 = 500_000;

/// The answers to all commands of a body, at this time in milliseconds.
pub(super) fn answer(body: &[u8], now: u64) -> Result<Vec<u8>, Fault> {
    let mut words = body.split(|byte| *byte == b'\n');
    let mut answers = String::new();
    while let Some(count) = words.next().and_then(|line| number(line, b'*')) {
        let mut command = Vec::new();
        for _ in 0..count {
            words.next();
            let word = words.next().ok_or("a command that is cut")?;
            command.push(String::from_utf8_lossy(word).trim_end().to_owned());
        }
        answers += &reply(&command, now)?;
    }
    Ok(answers.into_bytes())
}

fn number(line: &[u8], begins: u8) -> Option<u64> {
    let digits = line.strip_prefix(&[begins])?;
    String::from_utf8_lossy(digits).trim_end().parse().ok()
}

/// Verb, script, number of keys, key, holder: then the line's numbers.
fn reply(command: &[String], now: u64) -> Result<String, Fault> {
    let numbers: Result<Vec<u64>, _> = command.iter().skip(5).map(|word| word.parse()).collect();
    let is_line = command.first().is_some_and(|verb| verb == "EVALSHA");
    match (is_line, numbers?.as_slice()) {
        // About a budget.
        (true, &[_, granted, _, want, _, budget, _, _, _, _, _]) => {
            let grant = want.min(budget.saturating_sub(granted));
            let free = budget.saturating_sub(granted + grant);
            Ok(array([0, grant, granted + grant, free, 2, now, 1, 0, 0, 0]))
        }
        // About a bucket.
        (true, &[_, share, demand, _, _, _, _, _, _]) => {
            let grant = PART.saturating_sub(share);
            Ok(array([0, grant, PART, grant, 2, now, 1, demand, PART, 0]))
        }
        // About upstreams: none refuses.
        (true, []) => Ok("*0\r\n".to_owned()),
        (true, _) => Err(format!("a line of another form: {command:?}").into()),
        (false, _) => Ok("+OK\r\n".to_owned()),
    }
}

fn array(numbers: [u64; 10]) -> String {
    let numbers: String = numbers
        .iter()
        .map(|number| format!(":{number}\r\n"))
        .collect();
    format!("*10\r\n{numbers}")
}
