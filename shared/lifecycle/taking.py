"""What every statement that claims shards has in common: it raises the epoch, checks the session,
shows the job as running and returns all that the worker needs."""

from __future__ import annotations

from shared.states import JobState, ShardState, guard

# The planner takes lists for long and believes that few shards are ready at a time. Told like this,
# it finds each by its id, and neither reads the table nor looks through all that is ready.
STATE = "(s.state || '')"

ALIVE = """EXISTS (SELECT 1 FROM sessions w
                    WHERE w.id = :me AND w.expires_at > clock_timestamp() AND NOT w.draining)"""
"""Whether the session may claim."""


def run(rows: str) -> str:
    """Takes those of ``rows`` that are ready; more conditions may follow."""
    return f"""UPDATE shards s
       SET state = 'running', epoch = s.epoch + 1, session_id = :me,
           started_at = clock_timestamp(), progress = NULL,
           rows_completed = CASE s.pool WHEN :upkeep THEN s.rows_completed ELSE 0 END,
           rows_failed = CASE s.pool WHEN :upkeep THEN s.rows_failed ELSE 0 END
      FROM {rows}
     WHERE s.id = {rows}.id AND {guard(STATE, ShardState.RUNNING)}"""


BEGIN = f"""{run("budget")}
       AND s.id = ANY (ARRAY(SELECT id FROM budget))
       AND budget.rows_before < :max_rows AND {ALIVE}"""
"""The shards of ``budget``, as far as the room for rows goes."""

WORK = "coalesce(nullif(expected_seconds, 0), row_count, 1)"
"""What a shard counts for: expected seconds, or a second a row."""

START = f"""UPDATE jobs j SET state = 'running', version = j.version + 1,
           started_at = coalesce(j.started_at, clock_timestamp())
      FROM (SELECT DISTINCT job_id FROM claimed ORDER BY job_id) c
     WHERE j.id = c.job_id AND {guard("j.state", JobState.RUNNING)}"""
"""In one order: jobs have shards in several pools, and tenants another turn in each of them."""

COLUMNS = """c.id, c.epoch, c.job_id, c.tenant_id, j.kind, c.pool, c.stage, c.ordinal,
       coalesce(t.endpoint, j.endpoint), CASE c.stage WHEN 'step' THEN t.model ELSE j.model END,
       CAST(coalesce(t.spec, j.spec) AS text), c.row_count, c.byte_start, c.byte_end,
       c.first_line, c.suspect, c.crash_n, f.storage_key, j.stop_reason, c.lines, t.name,
       coalesce(t.line, 0), v.storage_key, CAST(j.detail AS text)"""
"""Those of ``claim.Claim``, in its order."""

CLAIMED = """claimed c JOIN jobs j ON j.id = c.job_id LEFT JOIN files f ON f.id = j.input_file_id
  LEFT JOIN files v ON v.id = j.validation_file_id
  LEFT JOIN steps t ON t.shard_id = c.id"""
