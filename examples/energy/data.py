"""Synthetic buildings: none of them stands anywhere, every number comes from the seeded generator below.

The yearly consumption follows a simple heat balance (losses through the envelope and the air, minus solar
gains, over the efficiency of the heating), plus cooling, hot water and equipment, with 6 % noise.
"""

from typing import Any

import numpy as np
import pandas as pd

TARGET = "kwh_per_m2_year"

USES = ["apartments", "hospital", "hotel", "office", "retail", "school"]
ZONES = ["alpine", "continental", "mediterranean", "oceanic"]
HEATINGS = ["district", "electric", "gas", "heat_pump", "oil"]
INSULATIONS = ["none", "partial", "full"]  # from worst to best
GLAZINGS = ["single", "double", "triple"]  # from worst to best

# Heating and cooling degree days (base 18 °C) around which each zone's years vary.
DEGREE_DAYS = {
    "alpine": (3_600, 60),
    "continental": (2_900, 220),
    "mediterranean": (1_300, 520),
    "oceanic": (2_300, 90),
}
# Equipment, light and hot water in kWh/m2/year, and weekly hours of use.
USE_LOADS = {
    "apartments": (38, 118),
    "hospital": (125, 168),
    "hotel": (78, 150),
    "office": (55, 58),
    "retail": (88, 72),
    "school": (28, 45),
}
EFFICIENCY = {"district": 0.93, "electric": 0.99, "gas": 0.88, "heat_pump": 3.1, "oil": 0.78}


def generate(rows: int = 6_000, *, seed: int = 20_240_603) -> pd.DataFrame:
    """Return `rows` synthetic buildings: the features of the card and `kwh_per_m2_year` (final energy)."""
    rng = np.random.default_rng(seed)
    columns = _building(rng, rows)
    kwh = _consumption(columns) * rng.lognormal(0, 0.06, rows)
    # A tenth of the buildings has no air-tightness test on file.
    columns["air_changes_per_hour"] = np.where(rng.random(rows) < 0.1, np.nan, columns["air_changes_per_hour"])
    return pd.DataFrame(columns | {TARGET: np.round(kwh, 1)})


def _building(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    use = rng.choice(USES, rows, p=[0.42, 0.04, 0.08, 0.22, 0.12, 0.12])
    zone = rng.choice(ZONES, rows, p=[0.08, 0.3, 0.22, 0.4])
    year = np.clip(np.round(2024 - rng.gamma(2.2, 20, rows)), 1850, 2024).astype(np.int64)
    quality = np.clip((year - 1950) / 70 + rng.normal(0, 0.35, rows), 0, 1)  # renovation: old is not always bad
    floor_area = np.round(np.clip(rng.lognormal(7.2, 0.9, rows), 120, 60_000), 0)
    floors = np.clip(np.round(1 + np.log2(floor_area / 100) * rng.uniform(0.4, 1.3, rows)), 1, 40).astype(np.int64)
    heating_days = np.array([DEGREE_DAYS[z][0] for z in zone]) * rng.normal(1, 0.08, rows)
    cooling_days = np.array([DEGREE_DAYS[z][1] for z in zone]) * rng.normal(1, 0.15, rows)
    hours = np.clip(np.round(np.array([USE_LOADS[u][1] for u in use]) * rng.normal(1, 0.12, rows)), 5, 168)
    solar = rng.random(rows) < 0.08 + 0.25 * (year > 2010)
    return {
        "use": use.astype(object),
        "climate_zone": zone.astype(object),
        "heating": rng.choice(HEATINGS, rows, p=[0.14, 0.2, 0.38, 0.18, 0.1]).astype(object),
        "wall_insulation": np.array(INSULATIONS, dtype=object)[np.clip(np.round(quality * 2), 0, 2).astype(int)],
        "glazing": np.array(GLAZINGS, dtype=object)[
            np.clip(np.round(quality * 2 + rng.normal(0, 0.4, rows)), 0, 2).astype(int)
        ],
        "year_built": year,
        "floors": floors,
        "floor_area_m2": floor_area,
        "heated_area_m2": np.round(floor_area * rng.uniform(0.72, 1.0, rows), 0),
        "window_share": np.round(np.clip(rng.normal(0.27, 0.1, rows), 0.05, 0.85), 3),
        "air_changes_per_hour": np.round(np.clip(1.6 - 1.2 * quality + rng.normal(0, 0.2, rows), 0.1, 4), 2),
        "occupants": np.maximum(1, np.round(floor_area / rng.uniform(14, 45, rows))).astype(np.int64),
        "hours_per_week": hours.astype(np.int64),
        "setpoint_celsius": np.round(np.clip(rng.normal(20.3, 1.1, rows), 15, 26), 1),
        "heating_degree_days": np.round(heating_days, 0),
        "cooling_degree_days": np.round(np.maximum(cooling_days, 0), 0),
        "has_cooling": rng.random(rows) < 0.2 + 0.4 * np.isin(use, ["hospital", "hotel", "office", "retail"]),
        "has_heat_recovery": rng.random(rows) < 0.05 + 0.5 * quality,
        "solar_kwp": np.where(solar, np.round(floor_area / floors * rng.uniform(0.02, 0.12, rows), 1), 0.0),
    }


def _consumption(columns: dict[str, Any]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return kWh per square metre of heated area and year, without noise."""
    wall = np.array([{"none": 1.5, "partial": 0.7, "full": 0.25}[i] for i in columns["wall_insulation"]])  # W/m2K
    glass = np.array([{"single": 5.2, "double": 2.4, "triple": 1.0}[g] for g in columns["glazing"]])  # W/m2K
    # Envelope per square metre of floor: tall buildings share roof and ground between more floors.
    envelope = 0.55 + 0.8 / columns["floors"]
    share = columns["window_share"]
    losses = envelope * ((1 - share) * wall + share * glass)
    recovered = np.where(columns["has_heat_recovery"], 0.35, 1.0)
    losses = losses + 0.34 * 2.6 * columns["air_changes_per_hour"] * recovered
    warmth = 1 + 0.07 * (columns["setpoint_celsius"] - 20)
    use_factor = 0.55 + 0.45 * columns["hours_per_week"] / 168
    demand = np.maximum(losses * columns["heating_degree_days"] * 0.024 * warmth * use_factor - 22 * share, 4)
    heating = demand / np.array([EFFICIENCY[h] for h in columns["heating"]])
    cooling = np.where(columns["has_cooling"], columns["cooling_degree_days"] * (0.02 + 0.08 * share), 0)
    equipment = np.array([USE_LOADS[u][0] for u in columns["use"]])
    people = 900 * columns["occupants"] / columns["heated_area_m2"] * columns["hours_per_week"] / 168
    solar = np.minimum(1_000 * columns["solar_kwp"] / columns["heated_area_m2"], 0.6 * equipment)
    return np.asarray(np.maximum(heating + cooling + equipment + people * 0.3 - solar, 8), dtype=np.float64)
