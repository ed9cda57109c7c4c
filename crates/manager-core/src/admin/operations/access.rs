//! Operations on keys, sessions, the audit log and the server itself.

use serde_json::json;

use crate::admin::{
    api::{Api, op},
    audit, instance, keys, session,
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
