//! One budget for many proxies: how much of it each proxy may spend, and how the proxies agree on that through a Redis or a Valkey.
//!
//! No request waits for the store, except the first ones of a window and those after a silence. A proxy holds a part of each budget that it needs, its *slice*, and
//! serves requests from that. Between requests, the proxy reports to the store in a *line* what it used and how much more it wants. This
//! module is that protocol as a pure core: what a proxy reports, what an answer means, and how both are encoded. The module makes no calls,
//! and does not access records: the shared limits of a record are in
//! [`state::shared_budgets`](crate::state::shared_budgets) and [`state::shared_buckets`](crate::state::shared_buckets), and
//! [`teller`](crate::teller) connects those to the store.
//!
//! | part | content |
//! |---|---|
//! | [`grant`] | the state of one holder of one account: what it may spend, when its next line is due, and what an answer changes |
//! | [`share`] | how the configuration wants a limit to be shared |
//! | [`slice`](mod@slice) | a grant, and which account of the store it belongs to, as a record stores them |
//! | [`rate`] | as `grant`, but for a token bucket: the share of the bucket's rate that one proxy has |
//! | [`quota`] | how fast a bucket refills, and which part of that rate this proxy has |
//! | [`line`](mod@line) | a line, its answer, and the key of an account |
//! | `script.lua`, `rates.lua` | what the store does, in one step, with a line about a budget, and with one about a bucket |
//! | [`pressed`], `pressed.lua` | which upstreams refuse, as proxies report it to each other |
//! | [`call`] | the bytes of a connection that carries up to 256 lines |
//! | [`resp`] | the store's protocol, read strictly |
//! | [`clock`] | how far the store's clock is from ours |
//!
//! # The protocol
//!
//! An *account* is one limit of one tenant (or parent, or subject) in one window; in the store it is a hash. A *holder* is one process as a
//! participant in an account, named by a random number that is drawn whenever the process's record begins anew. For each holder the store
//! keeps its *grant* G, the most that the holder may have spent and held since the window opened; for the account, the sum of all grants.
//!
//! A line contains all that its sender knows: `seq` (the line's number), G, U (how much is spent and held by now), and how much more the
//! sender wants. The store processes a line in one step:
//!
//! ```text
//! seq not above the last one: nothing changes          late or doubled
//! sum += G - the holder's G                            the sender's G counts, up and down
//! free = max(budget - sum, 0)
//! grant = min(want, free, max(free / (2 × holders), min(least, free)))
//! sum += grant, the holder's G = G + grant             and the answer says so
//! ```
//!
//! Four rules make the protocol safe, whatever is lost, late, doubled or out of order:
//!
//! 1. The store never takes a grant away. Only the holder lowers its grant, first in its own state, and then in the next line.
//! 2. A grant is added to G only by the answer to the newest line, once. If the answer is lost, the next line reports the old G, and what
//!    was granted becomes free for all again.
//! 3. So the store's G of a holder is never below the holder's own G, and the sum of all grants is never above the budget.
//! 4. A process that no longer knows what it held, such as one that was restarted, gets a new name. What was granted to the old name
//!    stays granted.
//!
//! So what a killed process had not used stays unused until the window ends. With `reclaim`, the store lowers the grant of a holder that
//! was silent for that time to the U that it last reported. This is an exception to the first rule. Therefore a holder that has had no
//! answer for half of that time stops spending from its slice ([`grant::Grant::check`]).
//!
//! *How much.* A holder aims for a slice that lasts 20 seconds at its present rate (`2 × most`). Where not all holders can have as much, it
//! aims for less, but for at least 2 seconds (`2 × least`) and at least its largest reservation. A holder whose slice exceeds this aim by
//! more than one reservation gives the surplus back. One answer grants at most half of an equal part of what is free; if a request was
//! refused for lack of room, it grants at least that one reservation. So slices and pauses shrink near the end of a budget.
//!
//! *How often.* The next line is due after half of the time that the slice will last, but at least `least` and at most `most` after the
//! last line. After a refused request the next line is sent at once, but not earlier than 200 ms after the last one; this delay doubles
//! with each line that was not granted what it needed. Failed calls are repeated after 250 ms, a delay that doubles each time, up to
//! `most`. A holder that has been idle for two pauses gives back all but what it holds, and sends no more lines.
//!
//! *Windows.* Each window has its own account, so that no budget of the old window can be spent in the new one, or vice versa. For a proxy,
//! a window begins and ends by the proxy's own clock. The store checks lines by its own clock: it refuses lines about a window that opens
//! more than 10 seconds later, or that ended more than a minute ago. So a wrong clock costs service, but no money: a proxy whose clock is
//! an hour ahead refuses requests for an hour when a window begins; a proxy whose clock is an hour behind serves requests for that hour
//! from what it had left of the previous window. The answer shows how far the clocks differ, which is logged ([`clock::Skew`]). A proxy
//! requests no slice of a window before the window is open. A proxy that has used the budget in the old window and still holds some of it
//! sends its first line about the new window within a quarter of `least` after the window's end, without waiting for a request. In other
//! proxies, the window's first request makes the proxy send the line, and waits for the answer ([`share::FirstRequest::Waits`]); so does
//! the first request after a silence, since an idle proxy has given its slice back.
//!
//! *What operators change.* The store keeps what operators changed about a limit in a hash beside the limit's accounts: its generation, a
//! budget that replaces the configured one, and a raise. The script applies them: it replaces a line's budget, adds the raise, and counts
//! a line about an earlier generation in the account of the latest one, of which the sender was granted nothing yet. The answer contains
//! all three. A proxy that learns of a later generation begins its account anew, with what that answer granted. What the proxy had used,
//! and what requests in flight hold, stays charged on the account of the earlier generation, which keeps its own bound. Generations only
//! increase, and every line names its generation. So a store that lost its data learns the generations again, but not budgets and raises.
//!
//! *A store that lost its data.* An account has a birth date, and each line contains the birth date that its sender knows. If the two
//! differ, data was lost, and the store grants nothing until all active holders have had the time to report again what they hold. The
//! sender learns of the loss from the answer ([`grant::Told::StoreLost`]).
//!
//! # What may be spent beyond the budget
//!
//! If no request uses more than it reserved, the bounds are:
//!
//! | case | at most |
//! |---|---|
//! | the store keeps its data; messages lost, late or doubled; any crashes; any clocks | 0 |
//! | first requests on credit ([`grant::Cold::Credit`]) | one reservation for each fresh process and window |
//! | `reclaim` | what holders that fell silent, killed or cut off, had used since their last line |
//! | the store lost its data | what processes had spent that have since ended or become idle; what was granted before the loss was reported |
//! | the store does not answer, [`grant::Unreachable::Local`] | that fraction of what was free in each proxy's last answer |
//! | budgets that differ from proxy to proxy, a raise that begins or ends | 0 beyond the largest of these budgets |
//! | a reset | each generation has its own bound: together the budget once more |
//!
//! `tests/properties/lease.rs` checks these bounds against a model of the store; `tests/lease_script.rs` checks the model against real
//! stores.
//!
//! # The store
//!
//! The store is a Redis 7 or a Valkey with one primary, reached by raw TCP. A proxy between bursar and the store must not close the
//! connection when the client has closed its half, since the answers would then be lost. The store must not drop data:
//! `maxmemory-policy noeviction`, and an append-only file. Its user needs only these permissions:
//!
//! ```text
//! resetkeys ~bursar:* -@all +auth +quit +time +eval +evalsha +hmget +hset +hrandfield +hdel +expireat
//! ```
//!
//! Numbers are exact up to 2^53, which in micro-dollars is nine billion dollars.

pub mod call;
pub mod clock;
pub mod grant;
pub mod line;
pub mod pressed;
pub mod quota;
pub mod rate;
pub mod resp;
pub mod share;
pub mod slice;
