"""What to simulate: the organisation's size and habits, its troubles and its intruders."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from raretrail.errors import UsageError

CAMPAIGN_KINDS: tuple[str, ...] = (
    "new_city",
    "rare_city",
    "other_office",
    "home_city_new_network",
    "blended_travel_city",
    "single_quiet_call",
    "recon_burst",
    "instance_credentials_outside",
    "session_key_two_places",
    "intruder_made_identity",
)

NAMINGS: tuple[str, ...] = ("mixed", "sso", "federated", "opaque", "iam_users")
ADDRESS_PLANS: tuple[str, ...] = ("mixed", "offices", "homes", "vpn", "roaming")


@dataclass(frozen=True)
class Mix:
    """How much of each innocent trouble: 1 is the usual amount, 0 none, 2 twice as much."""

    newcomers: float = 1.0
    travellers: float = 1.0
    always_travelling: float = 1.0
    weekly_housekeeping: float = 1.0
    monthly_housekeeping: float = 1.0
    rollout: float = 1.0
    job_change: float = 1.0
    incident_response: float = 1.0
    vpn_many_addresses: float = 1.0
    new_exits: float = 1.0
    suburbs: float = 1.0
    mobile_carriers: float = 1.0
    national_carriers: float = 1.0
    remote_desktops: float = 1.0
    cloud_desktops: float = 1.0
    tool_upgrades: float = 1.0
    denied_bursts: float = 1.0
    long_tails: float = 1.0
    run_sessions: float = 1.0
    saas_vendors: float = 1.0
    geoip_update: float = 1.0
    service_calls: float = 1.0
    private_addresses: float = 1.0


INNOCENT_KINDS: tuple[str, ...] = tuple(f.name for f in fields(Mix))


@dataclass(frozen=True)
class Shape:
    """One simulated organisation. The same shape gives the same bytes, wherever it runs.

    `campaigns` is how many intrusions (None: one per six people, at most one a day of the judged
    days) or exactly which kinds; they begin only within the last `judged_days` before `end`.
    Raises UsageError for values that cannot be simulated.
    """

    seed: int = 7
    people: int = 40
    days: int = 35
    end: date = date(2026, 3, 1)
    judged_days: int = 14
    accounts: int = 4
    offices: int = 3
    campaigns: int | tuple[str, ...] | None = None
    naming: str = "mixed"
    addresses: str = "mixed"
    mix: Mix = field(default_factory=Mix)
    events_per_person_day: float = 24.0
    robot_activity: float = 1.0
    own_commands_share: float = 0.4
    victim_hours_share: float = 0.5
    residential_share: float = 0.5
    redelivered_share: float = 0.006
    slot_minutes: int = 60
    hold_minutes: int = 180
    networks_db: bool = True

    def __post_init__(self) -> None:
        def need(holds: bool, what: str) -> None:
            if not holds:
                raise UsageError(f"cannot simulate: {what}")

        need(self.people >= 4, f"people must be at least 4, not {self.people}")
        need(self.days >= 3, f"days must be at least 3, not {self.days}")
        need(1 <= self.judged_days <= self.days, "judged_days must lie within days")
        need(1 <= self.accounts <= 40, f"accounts must be 1 to 40, not {self.accounts}")
        need(1 <= self.offices <= 8, f"offices must be 1 to 8, not {self.offices}")
        need(5 <= self.slot_minutes <= 60, "slot_minutes must be 5 to 60")
        need(self.hold_minutes >= 0, "hold_minutes must not be negative")
        need(self.naming in NAMINGS, f"naming must be one of {', '.join(NAMINGS)}")
        need(self.addresses in ADDRESS_PLANS, f"addresses must be one of {', '.join(ADDRESS_PLANS)}")
        if isinstance(self.campaigns, tuple):
            unknown = sorted(set(self.campaigns) - set(CAMPAIGN_KINDS))
            need(not unknown, f"no campaign kind {', '.join(unknown)}")
        elif self.campaigns is not None:
            need(self.campaigns >= 0, "campaigns must not be negative")
        for knob in INNOCENT_KINDS:
            need(getattr(self.mix, knob) >= 0, f"mix.{knob} must not be negative")

    @property
    def start(self) -> date:
        """First day simulated."""
        return self.end - timedelta(days=self.days)

    @property
    def judged_from(self) -> date:
        """First day on which a campaign may begin."""
        return self.end - timedelta(days=self.judged_days)

    @property
    def campaign_count(self) -> int:
        """How many campaigns there will be."""
        if isinstance(self.campaigns, tuple):
            return len(self.campaigns)
        if self.campaigns is not None:
            return self.campaigns
        return min(self.judged_days, max(1, round(self.people / 6)))


@dataclass(frozen=True)
class Summary:
    """What was written: counts, and the labels as they stand in `labels.json`."""

    out: Path
    files: int
    events: int
    records: int
    first_day: date
    last_day: date
    campaigns: tuple[dict[str, Any], ...]
    innocents: tuple[dict[str, Any], ...]

    @property
    def redelivered(self) -> int:
        """Records that repeat an event already delivered."""
        return self.records - self.events
