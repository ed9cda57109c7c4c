//! People who sign in without a key: an identity provider says who they are.

use chrono::{DateTime, Utc};
use picloud_shared::{KeyId, Scope};
use uuid::Uuid;

use crate::{Store, StoreError};

/// Somebody who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRecord {
    /// Ours, kept for as long as the provider names the same subject.
    pub id: Uuid,
    /// The provider.
    pub issuer: String,
    /// By which the provider knows them, for good.
    pub subject: String,
    /// For people.
    pub name: String,
    /// Where the provider tells it.
    pub email: Option<String>,
    /// `viewer`, `operator` or `admin`, as of the last time they signed in.
    pub role: String,
    /// When they first came.
    pub first_seen_at: DateTime<Utc>,
    /// When they last signed in.
    pub last_seen_at: DateTime<Utc>,
}

/// What a provider says of somebody.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// By which the provider knows them.
    pub subject: &'a str,
    /// For people.
    pub name: &'a str,
    /// Where the provider tells it.
    pub email: Option<&'a str>,
    /// What they are here.
    pub role: &'a str,
    /// What that lets them do.
    pub scopes: &'a [Scope],
}

/// Ids for somebody who may be new, and the digest of a key that nobody knows.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// The person's.
    pub id: Uuid,
    /// Of the key that their sessions stand for.
    pub key: KeyId,
    /// Of something random.
    pub hash: [u8; 32],
}

impl Store {
    /// Takes somebody in who signed in; gives the key that their sessions stand for, which has the
    /// scopes of now. Keys of theirs that could do more than they now may end.
    pub async fn greet_person(
        &self,
        new: &NewPerson,
        identity: &Identity<'_>,
        now: DateTime<Utc>,
    ) -> Result<(PersonRecord, KeyId), StoreError> {
        let scopes = words(identity.scopes);
        let mut transaction = self.pool().begin().await?;
        let person = sqlx::query_as!(
            PersonRecord,
            "INSERT INTO people (id, issuer, subject, name, email, role, first_seen_at, last_seen_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
             ON CONFLICT (issuer, subject) DO UPDATE SET name = EXCLUDED.name, email = EXCLUDED.email,
                 role = EXCLUDED.role, last_seen_at = EXCLUDED.last_seen_at
             RETURNING id, issuer, subject, name, email, role, first_seen_at, last_seen_at",
            new.id,
            identity.issuer,
            identity.subject,
            identity.name,
            identity.email,
            identity.role,
            now,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let key = sqlx::query_scalar!(
            "INSERT INTO api_keys (id, name, hash, prefix, scopes, created_at, person_id)
             VALUES ($1, $2, $3, '', $4, $5, $6)
             ON CONFLICT (person_id) WHERE parent_id IS NULL AND revoked_at IS NULL
                 DO UPDATE SET name = EXCLUDED.name, scopes = EXCLUDED.scopes
             RETURNING id",
            new.key.0,
            identity.name,
            new.hash.as_slice(),
            &scopes,
            now,
            person.id,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if !identity.scopes.contains(&Scope::InstanceAdmin) {
            sqlx::query!(
                "UPDATE api_keys SET revoked_at = $2
                 WHERE person_id = $1 AND revoked_at IS NULL AND NOT scopes <@ $3",
                person.id,
                now,
                &scopes,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok((person, key.into()))
    }

    /// Ends the sessions and keys of somebody whom the provider names and who may do nothing here
    /// any more.
    pub async fn turn_person_away(
        &self,
        issuer: &str,
        subject: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM people WHERE issuer = $1 AND subject = $2",
            issuer,
            subject,
        )
        .fetch_optional(self.pool())
        .await?;
        if let Some(id) = id {
            self.end_person(id, now).await?;
        }
        Ok(())
    }

    /// Ends the sessions and keys of a person; who that is, if anybody.
    pub async fn end_person(
        &self,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Option<PersonRecord>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let person = sqlx::query_as!(
            PersonRecord,
            "SELECT id, issuer, subject, name, email, role, first_seen_at, last_seen_at
             FROM people WHERE id = $1 FOR UPDATE",
            id,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query!(
            "DELETE FROM sessions WHERE key_id IN (SELECT k.id FROM api_keys k WHERE k.person_id = $1)",
            id,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "UPDATE api_keys SET revoked_at = $2 WHERE person_id = $1 AND revoked_at IS NULL",
            id,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(person)
    }

    /// Everybody who ever signed in, the last first, with how many sessions they have open.
    pub async fn people(
        &self,
        now: DateTime<Utc>,
        most: i64,
    ) -> Result<Vec<(PersonRecord, u64)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT p.id, p.issuer, p.subject, p.name, p.email, p.role, p.first_seen_at, p.last_seen_at,
                 (SELECT count(*) FROM sessions s JOIN api_keys k ON k.id = s.key_id
                  WHERE k.person_id = p.id AND k.revoked_at IS NULL AND s.expires_at > $1) AS "open!"
               FROM people p ORDER BY p.last_seen_at DESC, p.id LIMIT $2"#,
            now,
            most,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let person = PersonRecord {
                    id: row.id,
                    issuer: row.issuer,
                    subject: row.subject,
                    name: row.name,
                    email: row.email,
                    role: row.role,
                    first_seen_at: row.first_seen_at,
                    last_seen_at: row.last_seen_at,
                };
                (person, row.open.unsigned_abs())
            })
            .collect())
    }
}

/// Scopes, as they are kept.
pub(crate) fn words(scopes: &[Scope]) -> Vec<String> {
    scopes
        .iter()
        .map(|scope| scope.as_str().to_owned())
        .collect()
}
