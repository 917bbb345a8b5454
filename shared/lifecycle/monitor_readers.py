"""Those who began to work on a monitor and did not get to its end: they come back empty-handed
through no fault of the monitor's, or never."""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.lifecycle.monitor_work import MonitorClaim, hold_monitor
from shared.lifecycle.webhooks import tell
from shared.specs.schedules import MOST_LOST_READERS, SOURCE_UNREADABLE

_CAME_BACK = text("UPDATE monitors SET readers_out = 0 WHERE id = :monitor")

_GIVE_UP = text("""
UPDATE monitors
   SET state = 'paused', readers_out = 0, lease_until = NULL, error_code = :code,
       error_message = :message, next_look_at = clock_timestamp(), updated_at = clock_timestamp()
 WHERE id = :monitor
""")

# Without it nobody looks at a monitor that is paused; its texts wait for whoever resumes that.
_FORGET_BATCH = text("DELETE FROM monitor_batches WHERE monitor_id = :monitor")


def postpone_monitor(connection: Connection, claim: MonitorClaim) -> bool:
    """Whoever worked on it is alive, and could not: somebody looks when the lease has ended."""
    if not hold_monitor(connection, claim):
        return False
    connection.execute(_CAME_BACK, {"monitor": claim.monitor_id})
    return True


def give_up_monitor(connection: Connection, claim: MonitorClaim) -> bool:
    """Pauses a monitor whose readers were lost one after the other, and tells so. If counting what
    its batch says is what ends them, paused as it is, that batch is given up, too. Resumed, it
    starts afresh."""
    if not hold_monitor(connection, claim):
        return False
    message = f"{MOST_LOST_READERS} processes in a row did not come back from working on it"
    values = {"monitor": claim.monitor_id, "code": SOURCE_UNREADABLE, "message": message}
    connection.execute(_GIVE_UP, values)
    if not claim.is_active:
        connection.execute(_FORGET_BATCH, {"monitor": claim.monitor_id})
        return True
    tell(
        connection,
        tenant_id=claim.tenant_id,
        kind="monitor.paused",
        about=claim.monitor_id,
        own=claim.webhook,
    )
    return True
