//! What a test has beyond a script. The functions are made by the tester, which knows their host.

functions! {
    "" :: "assert" [1, 2], ["assert(condition: bool)", "assert(condition: bool, message: String)"], "Fails the test where the condition is false.";
    "" :: "assert_eq" [2], ["assert_eq(left: Dynamic, right: Dynamic)"], "Fails the test where the two differ, and shows where.";
    "" :: "call" [1, 2], ["call(script: String) -> Map", "call(script: String, request: Map) -> Map"], "Runs a handler for a request `#{method, path, params, query, headers, body, json}`, all optional; gives the answer `#{status, headers, body, json, body_raw}`, and `error` where the run failed.";
    "" :: "fire" [1, 2], ["fire(trigger: String) -> Map", "fire(trigger: String, payload: Dynamic) -> Map"], "Runs a trigger's handler now; the payload is the event's own part (`ctx.event.cron`, `.kv`, …). Gives the run `#{status, value, error, attempt}`; what failed is tried again as the clock advances.";
    "http" :: "mock" [2], ["mock(url: String, answer: Map)"], "From now on requests to that URL get `#{status, headers, body}`; `*` at its end stands for any rest, `method` narrows it. A request that nothing answers throws.";
    "http" :: "sent" [0], ["sent() -> Array"], "The requests that were sent so far: `#{method, url, headers, body}`.";
    "secrets" :: "mock" [2], ["mock(name: String, value: String)"], "Gives a secret a value; one that app.yaml declares is else `test-NAME`.";
    "clock" :: "set" [1], ["set(time: String)"], "Sets the clock to a time of RFC 3339. Nothing runs; schedules go on from there. A test begins at 2026-01-01T00:00:00Z.";
    "clock" :: "advance" [1], ["advance(duration: String)"], "Lets time pass, and runs what falls due: cron triggers, jobs, events, retries.";
}
