//! Operations on keys, sessions, the audit log and the server itself.

use serde_json::json;

use crate::admin::{
    api::{Api, op},
    audit, device, instance, keys, people, session, sign_in,
};

pub(super) fn operations(api: Api) -> Api {
    api.get("/keys", keys::list, op("listKeys", "Access", "Keys, newest first, without what they are.").lists("Key"))
        .post(
            "/keys",
            keys::create,
            op("createKey", "Access", "Makes a key. It is shown this once.")
                .more("Nobody gives a scope that they lack; a key of one app makes keys of that app alone.")
                .takes("KeyBody")
                .gives(201, "The key.", "NewKey")
                .can(404, "There is no such app.")
                .can(409, "There is a key of that name."),
        )
        .delete(
            "/keys/{id}",
            keys::revoke,
            op("revokeKey", "Access", "Ends a key and its sessions, on every node within a second.")
                .empty(204, "It is good for nothing any more."),
        )
        .get(
            "/audit",
            audit::list,
            op("listAudit", "Access", "Who wrote what, newest first.")
                .of_app()
                .query("action", "An action, or the first word of several: `key.create`, `key`.", json!({ "type": "string" }))
                .query("actor", "The name of the key.", json!({ "type": "string" }))
                .query("target", "What it was done to.", json!({ "type": "string" }))
                .between()
                .lists("AuditEntry"),
        )
        .get(
            "/me",
            session::me,
            op("getMe", "Access", "Who one is, and what one may.").gives(200, "The key, and the session's token.", "Me"),
        )
        .post(
            "/session",
            session::create,
            op("openSession", "Access", "Exchanges a key for a session's cookie.")
                .takes("SessionBody")
                .gives(201, "The session; its cookie is in `Set-Cookie`.", "Session")
                .can(401, "The key is not known, or its time is over.")
                .can(403, "The request comes from a page of another origin.")
                .can(429, "Ten wrong keys in a minute from this address."),
        )
        .get(
            "/session",
            sign_in::probe,
            op("getSession", "Access", "Whether one is signed in, and how one can be.")
                .more("Never a refusal: a page may ask before it knows.")
                .gives(200, "Who one is, if anybody.", "SessionState"),
        )
        .get(
            "/session/oidc",
            sign_in::begin,
            op("beginSignIn", "Access", "Sends a browser to the identity provider.")
                .query("next", "A page of the dashboard to go to afterwards.", json!({ "type": "string" }))
                .empty(303, "To the provider.")
                .can(404, "No identity provider is configured.")
                .can(429, "Too many sign in at once."),
        )
        .get(
            "/session/oidc/callback",
            sign_in::finish,
            op("finishSignIn", "Access", "Where the identity provider sends a browser back to.")
                .query("code", "What the provider gave.", json!({ "type": "string" }))
                .query("state", "What it was given.", json!({ "type": "string" }))
                .query("error", "Why it gave no code.", json!({ "type": "string" }))
                .empty(303, "To the dashboard, with the session's cookie; or to its sign-in page, which says what was wrong.")
                .can(404, "No identity provider is configured."),
        )
        .get(
            "/people",
            people::list,
            op("listPeople", "Access", "Who signed in by the identity provider, the last first.")
                .gives(200, "At most 200 of them.", "People"),
        )
        .delete(
            "/people/{id}",
            people::end,
            op("signPersonOut", "Access", "Ends somebody's sessions, and the keys of programs that they let in.")
                .more("They may sign in again as long as the identity provider gives them a role.")
                .empty(204, "They are signed out."),
        )
        .post(
            "/login",
            device::begin,
            op("beginLogin", "Access", "A program asks to be let in, and is told the code that a person confirms.")
                .takes("LoginBody")
                .gives(201, "The codes.", "Login")
                .can(429, "Too many logins from this address."),
        )
        .post(
            "/login/token",
            device::ask,
            op("askLogin", "Access", "A program asks for its key.")
                .more("400 until a person decided: `authorization_pending`, `slow_down`, `access_denied`, `expired_token`, as in RFC 8628.")
                .takes("LoginTokenBody")
                .gives(200, "The key, this once.", "NewKey"),
        )
        .get(
            "/login/{code}",
            device::show,
            op("getLogin", "Access", "What waits under a code.").gives(200, "What waits.", "WaitingLogin"),
        )
        .post(
            "/login/{code}/approve",
            device::approve,
            op("approveLogin", "Access", "Lets a program in, to do no more than one may oneself.")
                .more("Its key ends with the key or the person that let it in.")
                .may_take("LoginApproval")
                .gives(200, "What it was let do.", "WaitingLogin"),
        )
        .post(
            "/login/{code}/deny",
            device::deny,
            op("denyLogin", "Access", "Turns a program away.").empty(204, "It is turned away."),
        )
        .delete(
            "/session",
            session::remove,
            op("closeSession", "Access", "Ends the session.").empty(204, "It is gone."),
        )
        .get(
            "/instance",
            instance::show,
            op("getInstance", "Instance", "The server: version, what secrets are sealed to, what is served.")
                .more("Nodes and the database are shown to `instance:admin`.")
                .gives(200, "The server.", "Instance"),
        )
}
