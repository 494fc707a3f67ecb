"""Records under short names, for tests that compare many of them at once."""


def flat(records):
    """Return {"new_old/map": value, "new_old/map/low": low, ...}; without models only the metric."""
    values = {}
    for one in records:
        name = f"{one.query}_{one.gallery}/{one.metric}" if one.query else one.metric
        if one.order is not None:
            name = f"{one.order}/{one.metric}" + ("" if one.share is None else f"/{one.share}")
        values |= {name: one.value, f"{name}/low": one.low, f"{name}/high": one.high}
    return values


def draws(records):
    """Return {"new_old/map": draws, ...}."""
    return {f"{one.query}_{one.gallery}/{one.metric}": one.draws for one in records}
