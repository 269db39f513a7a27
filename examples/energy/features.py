"""The features and rules of the energy model: numbers, flags, open categories and two ordered, closed ones."""

from examples.energy.data import GLAZINGS, HEATINGS, INSULATIONS, USES, ZONES
from shared.cards.card import Rule
from shared.cards.features import Feature

FEATURES = [
    Feature(name="use", type="string", categories=[*USES], description="Main use", example="office"),
    Feature(
        name="climate_zone", type="string", categories=[*ZONES], description="Climate of the place", example="oceanic"
    ),
    Feature(name="heating", type="string", categories=[*HEATINGS], description="Main source of heat", example="gas"),
    Feature(
        name="wall_insulation",
        type="string",
        categories=[*INSULATIONS],
        unknown="refuse",
        description="How much of the walls is insulated",
        example="partial",
    ),
    Feature(
        name="glazing",
        type="string",
        categories=[*GLAZINGS],
        unknown="refuse",
        description="Panes of most windows",
        example="double",
    ),
    Feature(name="year_built", type="integer", min=1500, max=2100, description="Year of completion", example=1987),
    Feature(name="floors", type="integer", min=1, max=200, description="Floors above ground", example=4),
    Feature(name="floor_area_m2", type="number", exclusive_min=0, description="Floor area, in m²", example=1850.0),
    Feature(
        name="heated_area_m2", type="number", exclusive_min=0, description="Heated part of it, in m²", example=1640.0
    ),
    Feature(name="window_share", type="number", min=0, max=1, description="Windows' share of the facade", example=0.28),
    Feature(
        name="air_changes_per_hour",
        type="number",
        nullable=True,
        min=0,
        max=20,
        description="Air changes per hour; null if never measured",
        example=0.9,
    ),
    Feature(name="occupants", type="integer", min=0, description="Persons at full use", example=70),
    Feature(name="hours_per_week", type="integer", min=0, max=168, description="Hours of use a week", example=55),
    Feature(name="setpoint_celsius", type="number", min=5, max=30, description="Heating setpoint, in °C", example=20.5),
    Feature(
        name="heating_degree_days",
        type="number",
        min=0,
        description="Heating degree days of the year, base 18 °C",
        example=2350.0,
    ),
    Feature(
        name="cooling_degree_days",
        type="number",
        min=0,
        description="Cooling degree days of the year, base 18 °C",
        example=85.0,
    ),
    Feature(name="has_cooling", type="boolean", description="Whether it is cooled", example=True),
    Feature(
        name="has_heat_recovery", type="boolean", description="Whether its ventilation recovers heat", example=False
    ),
    Feature(name="solar_kwp", type="number", min=0, description="Solar panels, in kWp; 0 for none", example=0.0),
]

RULES = [
    Rule(
        expression="heated_area_m2 <= floor_area_m2",
        message="heated_area_m2 must not exceed floor_area_m2: it is a part of it",
    ),
]
