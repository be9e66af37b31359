//! One budget for many proxies: what each of them may spend of it, and how they agree through a Redis or a Valkey.
//!
//! No request waits for the store. A proxy holds a part of each budget that it needs, its *slice*, and serves from that; between
//! requests it tells the store what it used, and asks for more. This room is that agreement as a pure core: what is said, what an
//! answer means, how both are written. It makes no calls, and knows no records: the shared limits of a record are in
//! [`state::shared_budgets`](crate::state::shared_budgets) and [`state::shared_buckets`](crate::state::shared_buckets), and
//! [`teller`](crate::teller) is between them and the store.
//!
//! | part | what |
//! |---|---|
//! | [`grant`] | the state of one holder of one account: what may be spent here, when a line is due, what it says, what an answer does |
//! | [`share`] | what the configuration says about it |
//! | [`slice`] | a grant beside the account of its budget, as a record has it |
//! | [`rate`] | the same for a token bucket: the share of its rate that one proxy has |
//! | [`quota`] | how fast a bucket refills, and which part of it is this proxy's |
//! | [`line`] | a line, its answer, and the key of an account |
//! | `script.lua`, `rates.lua` | what the store does with a line about a budget, and about a bucket, in one step |
//! | [`call`] | up to 256 lines in one connection |
//! | [`resp`] | the store's protocol, read strictly |
//! | [`clock`] | how far the store's clock is from ours |
//!
//! # The protocol
//!
//! An *account* is one limit of one tenant (or parent, or subject) in one window: a hash in the store. A *holder* is one process's part
//! in it, named by a random number that is drawn whenever its record begins anew. For each holder the store keeps its *grant* G, the
//! most that it may have spent and held since the window opened, and for the account the sum of all grants.
//!
//! A line says all that its sender knows: `seq`, G, U (spent and held by now), what it wants more. The store takes it in one step:
//!
//! ```text
//! seq not above the last one: nothing changes          late or doubled
//! sum += G - the holder's G                            the sender's word counts, up and down
//! free = max(budget - sum, 0)
//! grant = min(want, free, max(free / (2 × holders), min(least, free)))
//! sum += grant, the holder's G = G + grant             and the answer says so
//! ```
//!
//! Four rules make it safe, whatever is lost, late, doubled or out of order:
//!
//! 1. The store never takes a grant away. Only its owner lowers it, in its own state first, and tells then.
//! 2. A grant is added to G only by the answer to the newest line, once. If the answer is lost, the next line says the old G, and what
//!    was granted falls back to all.
//! 3. So the store's G of a holder is never below the holder's own, and the sum of all is never above the budget.
//! 4. Whoever cannot know any more what it held, such as a process that was started again, gets a new name. What the old name was
//!    granted stays granted.
//!
//! A process that is killed thus leaves what it had not used unused until the window ends. With `reclaim`, after so long a silence the
//! store takes it back up to U: that is the exception to the first rule, and a holder that has not been heard for half of that time
//! spends nothing of its slice any more ([`grant::Grant::check`]).
//!
//! *How much.* A holder likes to have what lasts for 20 seconds at its present rate (`2 × most`), less where all cannot have as much, and
//! not less than what lasts for 2 (`2 × least`) or than its largest reservation. What is above by more than a reservation goes back.
//! Nobody gets more than a half of an equal part of what is free at a time, except for one reservation that a request was refused for
//! want of: near the end, slices and pauses shrink.
//!
//! *How often.* In a half of the time that the slice will last, between `least` and `most`. A refused request asks at once, 200 ms after
//! the last line at the earliest, and twice as late each time that it was not granted. Failed calls are repeated after 250 ms, and twice
//! as late each time, up to `most`. A holder that has been idle for two pauses gives back all but what it holds, and is silent then.
//!
//! *Windows.* Each window is another account, so that nothing of the old one can be spent in the new one, and the other way round.
//! A window begins and ends by each proxy's clock. The store checks that by its own: it refuses lines for a window that is more than 10
//! seconds ahead, or was over a minute ago. So a clock that is wrong costs service and no money: a proxy that is an hour ahead refuses
//! for an hour when a window begins, one that is an hour behind serves for so long from what it had left of the window before. The answer
//! tells how far the clocks are apart, which is logged ([`clock::Skew`]). No line asks for a window before it is open: the first request
//! of each brings it about, and waits for it ([`share::FirstRequest::Waits`]).
//!
//! *What operators change.* A generation, a budget in the place of the configured one, and a raise stand in the store, in a hash beside the
//! accounts of a limit, and the script takes them into account: a line's budget is replaced, the raise is added to it, and a line about an earlier generation counts in the later one's
//! account, where its sender was granted nothing yet. The answer tells all of it; a proxy that hears of a later generation begins its account
//! anew, with what that answer granted. What it had used, and what is under way, stays charged on the account before, which keeps its own
//! bound. Generations only go forwards, and lines name them: a store that has lost its data hears of them again, but not of budgets.
//!
//! *A store that lost its data.* An account has a birth date, and a line says which one its sender knows. Where they differ, data was
//! lost, and nothing is granted until all active holders have had the time to say anew what they hold. The sender is told
//! ([`grant::Told::StoreLost`]).
//!
//! # What may be spent beyond the budget
//!
//! Given that no request uses more than it reserved:
//!
//! | case | at most |
//! |---|---|
//! | the store keeps its data; any loss, delay, doubling; any number of crashes; any clocks | 0 |
//! | first requests on credit ([`grant::Cold::Credit`]) | one reservation for each fresh process and window |
//! | `reclaim` | what holders that fell silent, killed or cut off, had used since their last line |
//! | the store lost its data | what processes that are gone, or were idle since, had spent; and what others were granted before the first of those who know of the loss spoke |
//! | the store does not answer, [`grant::Unreachable::Local`] | that fraction of what was free as last told to each |
//! | budgets that differ from proxy to proxy, a raise that begins or ends | the largest one holds |
//! | a reset | each generation has its own bound: together the budget once more |
//!
//! `tests/properties/lease.rs` checks these against a model of the store, `tests/lease_script.rs` the model against real stores.
//!
//! # The store
//!
//! Redis 7 or Valkey, one primary, reached as raw TCP: through a proxy that closes once the client has closed its half, answers are
//! lost. It has to keep what it is told: `maxmemory-policy noeviction`, and an append-only file. Its user needs no more than
//!
//! ```text
//! resetkeys ~bursar:* -@all +auth +quit +time +eval +evalsha +hmget +hset +hrandfield +hdel +expireat
//! ```
//!
//! Numbers are exact up to 2^53: nine billion dollars, in micros.

pub mod call;
pub mod clock;
pub mod grant;
pub mod line;
pub mod quota;
pub mod rate;
pub mod resp;
pub mod share;
pub mod slice;
