//! The whole way: the real binary, the real engine, a real registry with a login, git, and the sandbox's racks. What is
//! asserted is what anybody can see: exit code, table, journal, what the racks were sent and what they run.

mod asking;
mod evidence;
mod failing;
mod groups;
mod guards;
mod images;
mod left;
mod locks;
mod many;
mod rollout;
mod signals;
mod status;
mod telling;
mod two;
