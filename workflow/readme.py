"""Write README.md and the pages of docs/ that hold results, from templates and results/ (make readme).

    python workflow/readme.py [PAGE ...]        (make docs: docs/methods.md alone, which takes seconds)

A template (docs/templates/*.j2, jinja2) asks for tables and numbers by name; no number is written by hand:

    {% set S = setting_of("quick:1") %}  {# the first setting of configs/quick.yml #}
    {{ table(S, "new/old", "new/new", "update gain") }}
    {{ number(S, "mixbct", "new/old") }}
    {{ difference(S, "mixbct", "bct", "new/new", "map") }}

A setting is the name of a folder of results/; "mixbct(credible_share=0.7)" is a variant of a method, and
"mixbct, equal passes" its run of as many backbone passes as the others'.
Metrics are in per cent, differences in points, both with their 95 % intervals.
"""

import argparse
import itertools
import sys
from functools import cache, cached_property
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import methods_page
import options_page
import pandas as pd

from companion import chains, claims, plots, results, tables
from companion.results import HEADLINE, TESTS
from companion.titles import LOSSES, method_title, options_of, setting_titles
from compat_lib.evaluation.records import metric_title, shown
from compat_lib.files import write_text
from compat_lib.losses import METHODS
from compat_lib.presets import load_preset

ROOT = Path(__file__).resolve().parents[1]
PAGES = (  # of each the template is docs/templates/NAME.j2
    *("README.md", "docs/results.md", "docs/teaching.md", "docs/choosing_options.md"),
    *("docs/which_method.md", "docs/claims.md", "docs/own_method.md", "docs/methods.md"),
)
OMNIGLOT = "evidence/omniglot:1"  # README's setting
DRAWN = "weakened_l2"  # whose first day there is README's figure


class Results:
    """What the templates may ask for, of a folder of run folders and of folders `beside` them in it."""

    def __init__(self, folder: str | Path = ROOT / "results", *beside: str) -> None:
        self.folder, self.beside = Path(folder), beside
        # a table and its sentences ask for the same rows
        self.settings, self.of, self.rows = cache(self.settings), cache(self.of), cache(self.rows)
        self._with_adapters, self.distinct = cache(self._with_adapters), cache(self.distinct)
        self.verdicts = cache(self.verdicts)
        self.together, self.whole = cache(self.together), cache(self.whole)  # pages share them

    @cached_property
    def runs(self) -> pd.DataFrame:
        """`results.collect` of the folders."""
        return results.collect(self.folder, *(self.folder / name for name in self.beside))

    def settings(self) -> dict[str, str]:
        """Every setting of the folder, experiment identifier -> title."""
        titles = setting_titles(self.runs[self.runs["method"] != "old"])
        return dict(sorted(titles.items(), key=lambda item: item[1]))

    def judged(self) -> dict[str, str]:
        """The settings whose oracle has run, against which the new model is judged."""
        return {
            setting: title
            for setting, title in self.settings().items()
            if (self.of(setting)["method"] == "independent").any()
        }

    def distinct(self) -> list[str]:
        """`results.distinct` of all settings."""
        return results.distinct(self.runs[self.runs["method"] != "old"])

    def setting_of(self, place: str) -> str:
        """A preset's setting: "quick:3" is the third one of configs/quick.yml."""
        preset, number = place.split(":")
        return self._planned(preset)[int(number) - 1]

    @staticmethod
    def _planned(preset: str) -> list[str]:
        listed = load_preset(ROOT / f"configs/{preset}.yml").experiments
        return list(dict.fromkeys(one.experiment_id for one in listed))

    def of(self, setting: str) -> pd.DataFrame:
        """The runs of a setting, old models left out; a ValueError says which settings there are."""
        if setting not in self.settings():
            there = ", ".join(self.settings()) or "none"
            raise ValueError(f"there is no setting {setting!r} in {self.folder.name}; there are {there}")
        return results.select(self.runs[self.runs["method"] != "old"], experiment_id=setting)

    def seeds(self, setting: str) -> str:
        """On how many seeds a setting's numbers rest, in words."""
        count = self.of(setting)["seed"].nunique()
        return "one seed" if count == 1 else f"{count} seeds"

    def metrics(self, setting: str) -> list[str]:
        """What stands for TAR, mAP and rank-1 in a setting's protocol, each once."""
        asked = (HEADLINE, "map", "rank1")
        return list(dict.fromkeys(results.metric_of(self.of(setting), metric) for metric in asked))

    def classes(self, setting: str) -> int:
        """Training classes of a setting's new models."""
        (count,) = {run.config["facts"]["classes"]["train"] for run in self.of(setting)["run"]}
        return count

    def rows(self, setting: str, metric: str = HEADLINE, part: str | None = None) -> pd.DataFrame:
        """Rows of `scores`: the independent model, its adapters, then the methods in the library's order."""
        order = ["independent", "adapter", *METHODS]
        rows = results.scores(results.on(self.of(setting), part) if part else self.of(setting), metric)
        place = rows["method"].map(lambda method: order.index(method.split("/")[0]))
        return rows.assign(place=place).sort_values("place", kind="stable", ignore_index=True)

    def table(
        self,
        setting: str,
        *columns: str,
        metric: str = HEADLINE,
        methods: tuple[str, ...] = (),
        plain: tuple[str, ...] = (),
    ) -> str:
        """A markdown table, one line a method.

        Args:
            columns: of `tables.result_table` and `tables.first_day_table`; none: all of the former.
            methods: which, in this order; none: all, below what they are compared with.
            plain: columns without their intervals.
        """
        rows = self.rows(setting, metric)
        chosen = [self._row(setting, method, metric).name for method in methods] or rows.index
        others = {
            part: self.rows(setting, metric, part).loc[chosen] for part in results.parts(self.of(setting))
        }
        result = tables.result_table(rows.loc[chosen], others)
        references = result[: result.attrs["references"] * (not methods)]
        days = tables.first_day_table(rows)
        found = pd.concat([references, result.merge(days, on="method")]).fillna("")
        found = found[["method", *(columns or result.columns[1:])]]
        for name in plain:
            found[name] = found[name].str.replace(r" \[.*\]", "", regex=True)
        return tables.markdown(found)

    def day(self, setting: str, metric: str = HEADLINE) -> str:
        """`tables.first_day_table` of a setting."""
        return tables.markdown(tables.first_day_table(self.rows(setting, metric)))

    def printed(self, setting: str) -> str:
        """Of another protocol than all pairs: the runs in its papers' columns, above what those print."""
        runs = self.of(setting)
        if runs["protocol"].iloc[0] == "pairs":
            return ""
        found = tables.protocol_table(runs, setting)
        columns = ["method", "query/gallery", "whose"]
        return tables.markdown(found[[*columns, *found.columns.drop(columns)]], left=3)

    def names(self, setting: str, number: str, how: str, part: str | None = None) -> str:
        """The trained methods whose difference is "above" zero, "below" it, or "within" the noise of it.

        The number is "margin" (new/old minus the bar) or "self_change" (new/new minus the oracle's); `part`
        is one of the test images, such as "in-domain".
        """
        chosen = [self._row(setting, one).name for one in self._trained(setting)]
        rows = self.rows(setting, HEADLINE, part).loc[chosen].dropna(subset=f"{number}_low")
        above, below = rows[f"{number}_low"] > 0, rows[f"{number}_high"] < 0
        asked = {"above": above, "below": below, "within": ~above & ~below}[how]
        return ", ".join(METHODS[one].title for one in rows["method"][asked]) or "none"

    def _trained(self, setting: str) -> list[str]:
        there = set(self.rows(setting)["method"])
        return [one for one in METHODS if one != "independent" and one in there]

    def by_setting(
        self,
        number: str,
        *methods: str,
        preset: str | None = None,
        fields: tuple[str, ...] = (),
        part: str | None = None,
    ) -> str:
        """A difference of methods, "margin" or "self_change", with one line a setting.

        A setting in which none of them trained is left out; a difference of other than the line's number of
        seeds has its own behind it.

        Args:
            methods: none: all of the preset, by their defaults.
            preset: whose settings, as far as they ran; None: all `distinct` ones that can be judged.
            fields: that name a setting, such as "old_loss", an option of its data set, or "classes", of its
                training; none: its title.
            part: of the test images.
        """
        titles, lines = self.settings() if preset else self.judged(), []
        titles = titles if preset else {one: title for one, title in titles.items() if one in self.distinct()}
        if preset and not methods:
            planned = load_preset(ROOT / f"configs/{preset}.yml").experiments
            methods = [one for one in METHODS if one != "independent" and one in {x.method for x in planned}]
        asked = {claims.parsed(one)[0] for one in methods}
        for setting in self._planned(preset) if preset else titles:
            trained = self._trained(setting) if setting in titles else []
            if not asked.intersection(trained):
                continue
            oracle = "independent" in set(self.of(setting)["method"])
            row = self._row(setting, "independent" if oracle else trained[0], part=part)
            known = {**options_of(row, "dataset_options"), **row, "classes": self.classes(setting)}
            line = {field: LOSSES.get(known[field], known[field]) for field in fields}
            line |= {} if fields else {"setting": titles[setting]}
            line |= {} if preset else {"classes": known["classes"]}
            line |= {"seeds": row["n"], "old/old": shown(row["old_old"])}
            line["oracle"] = shown(row["new_new"]) if oracle else ""
            for method in methods:
                if not (found := self._rows(setting, method, part=part)).empty:
                    one = found.iloc[0]
                    ends = [one[number + end] for end in ("", "_low", "_high")]
                    unasked = "{}" if "(" in method else one["method_options"]
                    line[method] = shown(*ends, signed=True) + method_title("", options=unasked)
                    pairs = one[f"{number}_seeds"]
                    line[method] += f" ({pairs})" if pairs != row["n"] else ""
            lines.append(line)
        names = {one: claims.titled(one) for one in methods} | {one: one.replace("_", " ") for one in fields}
        table = pd.DataFrame(lines, dtype=object).fillna("").astype(str)
        order = [one for one in table if one not in methods] + [one for one in methods if one in table]
        return tables.markdown(table[order].rename(columns=names)) if lines else "*None ran.*"

    def generations(self) -> str:
        """`chains.over_seeds` of the chains, which stand apart."""
        found = chains.find_chains(self.folder / "generations")
        return tables.markdown(chains.over_seeds(found, HEADLINE), left=2)

    def scoreboard(self) -> str:
        """`tables.scoreboard` of the distinct settings."""
        every = [self.rows(setting) for setting in self.distinct()]
        return tables.markdown(tables.scoreboard(pd.concat(every, ignore_index=True)))

    def number(
        self,
        setting: str,
        method: str,
        test: str,
        metric: str = HEADLINE,
        *,
        interval: bool = True,
        part: str | None = None,
    ) -> str:
        """One number with its interval, or of several seeds the deviation: test is "old/old", "new/old" or
        "new/new", "gain" (a fraction), or "images" or "time" relative to the oracle's."""
        row = self.rows(setting, metric, part).loc[self._row(setting, method, metric).name]
        name = {"gain": "gain", "images": "images", "time": "cost"}.get(test, test.replace("/", "_"))
        form = {"percent": False, "digits": 2} if test in ("gain", "images", "time") else {}
        several = row.get(f"{name}_n", 1) > 1
        ends = [row.get(name + end) for end in ("_low", "_high")] if interval and not several else []
        text = shown(row[name], *ends, signed=test == "gain", **form)
        return text + (f" ± {shown(row[f'{name}_deviation'], **form)}" if interval and several else "")

    def difference(
        self,
        setting: str,
        a: str,
        b: str | None = None,
        test: str = "new/old",
        metric: str = HEADLINE,
        *,
        interval: bool = True,
        part: str | None = None,
    ) -> str:
        """Method a minus method b in a test, in points; b None: minus old/old, the bar."""
        one = results.difference(*self._sides(setting, a, b, test, metric, part))
        if not one.seeds:
            raise ValueError(f"{a} and {b or 'old/old'} have no {metric} of {test} in common in {setting}")
        ends = (one.low, one.high) if interval else ()
        return shown(one.value, *ends, signed=True).replace("-", "−")

    def minus_oracle(self, setting: str, method: str, other: "Results", elsewhere: str) -> str:
        """A method's new/new minus that of an oracle among other runs, and how many seeds both have."""
        own, oracle = claims.pick(self.of(setting), method), claims.pick(other.of(elsewhere), "independent")
        pair, metric = TESTS["new_new"], results.metric_of(own)
        one = results.difference(own, pair, oracle, pair, metric)
        return f"{shown(one.value, one.low, one.high, signed=True)} ({one.seeds})".replace("-", "−")

    def ahead(self, setting: str, a: str, b: str | None = None, test: str = "new/old") -> str:
        """In how many seeds method a is ahead of method b in a test, "14 of 15"; b None: of the bar."""
        one, pair, other, second, metric = self._sides(setting, a, b, test, HEADLINE)
        left, right = results.measured(one, *pair, metric), results.measured(other, *second, metric)
        won = [left[seed].value > right[seed].value for seed in left if seed in right]
        return f"{sum(won)} of {len(won)}"

    def _sides(self, setting: str, a: str, b: str | None, test: str, metric: str, part: str | None = None):
        # What `results.difference` takes: runs and test of method a, then those of b or the bar.
        runs = self._with_adapters(setting, part)
        sides = [claims.pick(runs, name) for name in (a, b or a)]
        names = [test.replace("/", "_"), test.replace("/", "_") if b else "old_old"]
        return sides[0], TESTS[names[0]], sides[1], TESTS[names[1]], results.metric_of(runs, metric)

    def _with_adapters(self, setting: str, part: str | None) -> pd.DataFrame:
        return results.with_adapters(results.on(self.of(setting), part) if part else self.of(setting))

    def parts(self, setting: str) -> list[str | None]:
        """The parts of a setting's test images: None for its test, then the others by name."""
        return [None, *results.parts(self.of(setting))]

    def rivals(self, setting: str, method: str) -> str:
        """One method minus every other one and the bar, in both tests of every part, in points."""
        lines = []
        for other in (None, "independent", *(one for one in self._trained(setting) if one != method)):
            line = {f"{METHODS[method].title} minus": METHODS[other].title if other else "old/old, the bar"}
            for part, test in itertools.product(self.parts(setting), ("new/old", "new/new")):
                asked = other != (None if test == "new/new" else "independent")
                text = self.difference(setting, method, other, test, part=part) if asked else ""
                line[f"{test}, {part}" if part else test] = text
            lines.append(line)
        return tables.markdown(pd.DataFrame(lines))

    def against(self, method: str, variants: dict[str, str]) -> str:
        """Variants (name -> title) minus a method, in both tests of every setting, in points."""
        lines = [{"variant": title} for title in variants.values()]
        for setting, title in self.settings().items():
            there = self._with_adapters(setting, None)
            for (name, line), test in itertools.product(
                zip(variants, lines, strict=True), ("new/old", "new/new")
            ):
                ran = len(claims.pick(there, name))
                line[f"{title.split(', ')[0]}, {test}"] = (
                    self.difference(setting, name, method, test) if ran else ""
                )
        return tables.markdown(pd.DataFrame(lines))

    def _row(self, setting: str, method: str, metric: str = HEADLINE, part: str | None = None) -> pd.Series:
        if (found := self._rows(setting, method, metric, part)).empty:
            there = ", ".join(dict.fromkeys(self.rows(setting, metric)["method"]))
            raise ValueError(f"{method} did not run in {setting}; there are {there}")
        return found.iloc[0]

    def _rows(
        self, setting: str, method: str, metric: str = HEADLINE, part: str | None = None
    ) -> pd.DataFrame:
        """The rows of a method, by its defaults first."""
        rows, (name, options, passes) = self.rows(setting, metric, part), claims.parsed(method)
        found = rows[(rows["method"] == name) & (rows["budget"] == ("passes" if passes else "steps"))]
        found = found if options is None else found[found["method_options"] == options]
        return found.sort_values("method_options", key=lambda options: options != "{}", kind="stable")

    def first_day(self, folder: str | Path = ROOT / "figures") -> Path:
        """Draw figures/first_day.png: what an upgrade loses or gains on its first day."""
        setting = self.setting_of(OMNIGLOT)
        runs = self.of(setting)
        own = [results.main_variant(runs, name)["run"].iloc[0] for name in ("independent", DRAWN)]
        curves = map(results.backfill, own)
        before = own[1].metrics.value("old", "old", "map")
        plots.use_style()
        fig, ax = plt.subplots(figsize=(8.0, 5.0))
        plots.first_day(ax, *curves, before, title=METHODS[DRAWN].title)
        return _save(fig, "first_day", folder, {"setting": setting, "method": DRAWN, "metric": "map"})

    def upgrades(self, folder: str | Path = ROOT / "figures") -> Path:
        """Draw figures/upgrades.png: the cross-test of every method against its self-test."""
        setting = self.setting_of(OMNIGLOT)
        points = results.points(self.rows(setting), setting)
        shown_maps = ("adapter/procrustes-midpoint", "adapter/procrustes-slerp")
        points = {k: one for k, one in points.items() if k in shown_maps or k.isidentifier()}  # no variants
        plots.use_style()
        fig, ax = plt.subplots(figsize=(8.0, 4.4 + 0.14 * len(points)))
        named = {"titles": {name: point["title"] for name, point in points.items()}, "metric": HEADLINE}
        old_old = results.bounds(self.rows(setting), setting)["old_old"]
        plots.self_cross_scatter(ax, points, old_old=old_old, **named)
        plots.legend_below(ax)
        return _save(fig, "upgrades", folder, {"setting": setting, "metric": HEADLINE})

    def apart(self, name: str) -> "Results":
        """Runs that stand apart in a folder of their own, such as "blind"."""
        return Results(self.folder / name)

    def together(self, *names: str) -> "Results":
        """These runs and those that stand apart in folders of their own."""
        return Results(self.folder, *names)

    def whole(self, setting: str) -> "Results":
        """The runs of a setting by those methods alone that ran with every seed, by their defaults."""
        found, own = Results(self.folder, *self.beside), self.of(setting)
        own = own[(own["budget"] == "steps") & (own["method_options"] == "{}")]
        counts = own.groupby("method")["seed"].transform("nunique")
        found.runs = own[counts == own["seed"].nunique()]
        return found

    def there(self, preset: str) -> str:
        """How many runs of a preset are here, of how many."""
        listed = load_preset(ROOT / f"configs/{preset}.yml").experiments
        planned = {(one.experiment_id, one.run_id) for one in listed}
        here = zip(self.runs["experiment_id"], self.runs["run_id"], strict=True)
        return f"{len(planned.intersection(here))} of {len(planned)}"

    def moved(self, setting: str) -> str:
        """By how many points the oracle moved in its last third, "" where that is flat."""
        return tables.oracle_moved(self.of(setting), setting)

    def one_width(self, needed: bool) -> str:
        """The methods that need, or do not need, new features as wide as the old ones."""
        return ", ".join(one.title for one in METHODS.values() if one.one_width == needed)

    def verdicts(self, method: str | None = None) -> list[claims.Verdict]:
        """What these runs say of the claims of a method, or of all."""
        own = (claim for claim in claims.CLAIMS if method in (None, claim["method"]))
        return [claims.try_claim(claim, self.runs) for claim in own]

    def verdict_table(self) -> str:
        """`claims.verdict_table` of all claims."""
        table = claims.verdict_table({"verdict": self.verdicts()})
        return tables.markdown(table[["id", "paper", "claim", "verdict", "decided by"]], left=5)

    def claims_in_words(self) -> str:
        """How many claims hold, do not, cannot be decided and have not run."""
        verdicts = [one.verdict for one in self.verdicts()]
        kinds = (*reversed(claims.SEVERITY), claims.NOT_RUN)
        return ", ".join(f"{one} {verdicts.count(one)}" for one in kinds if one in verdicts)

    @staticmethod
    def evidence(verdict: claims.Verdict) -> str:
        """What decided a claim, the least favourable first."""
        return tables.markdown(verdict.table, left=2)

    def search(self) -> options_page.Search:
        """The search for the methods' options, as far as it has run."""
        return options_page.Search(ROOT / "configs/tuning/search.yml", self.folder / "tuning")

    def render(self, page: str) -> str:
        """The text of one of PAGES; a ValueError where it cannot be written."""
        loader = jinja2.FileSystemLoader(ROOT / "docs/templates")
        options = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True, "trim_blocks": True}
        environment = jinja2.Environment(loader=loader, lstrip_blocks=True, **options)
        methods = ("ordered", "needs", "described", "default_weights")
        functions = {name: getattr(methods_page, name) for name in methods}
        own = (name for name in dir(self) if not name.startswith("_") and name != "runs")
        functions |= {name: getattr(self, name) for name in own}
        functions |= {"metric_title": metric_title, "OMNIGLOT": OMNIGLOT}
        return environment.get_template(f"{Path(page).name}.j2").render(**functions)


def _save(fig: plt.Figure, name: str, folder: str | Path, made_by: dict[str, str]) -> Path:
    path = plots.save_figure(fig, name, folder, {"script": "workflow/readme.py"} | made_by)
    path.with_suffix(".svg").unlink()
    plt.close(fig)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help=f"{', '.join(PAGES)}; none: all and figures/")
    asked = parser.parse_args().pages
    made, changed = Results(), []
    for page in asked or PAGES:
        try:
            text = made.render(page)
        except ValueError as error:
            sys.exit(f"{page}: {error}")
        if not (ROOT / page).is_file() or (ROOT / page).read_text(encoding="utf-8") != text:
            write_text(ROOT / page, text)
            changed.append(page)
    if not asked:
        changed += [str(draw().relative_to(ROOT)) for draw in (made.first_day, made.upgrades)]
    print(f"written: {', '.join(changed) or 'none, all are current'}")


if __name__ == "__main__":
    main()
