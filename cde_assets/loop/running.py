"""Runs the loop from an empty home to its summary line."""

import signal
import sys
from typing import Any

from rich.console import Console

from cde_assets.loop.lender import LoopLender
from cde_assets.loop.story import LoopError, Story
from cde_assets.loop.timeline import Timeline
from cde_assets.processes import ServerError, free_port
from cde_assets.stack import run_stack
from cde_assets.traffic.service import TrafficError
from cde_serving.clock_file import ClockFile
from cde_serving.settings import Settings

LOG_WIDTH = 160  # of a file, where nobody says how wide lines may be


def run_loop(settings: Settings) -> int:
    """Tell the whole story; exit status 0 if everything in it happened, 1 with what did not."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else LOG_WIDTH)
    for sign in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(sign, signal.default_int_handler)
    lender = LoopLender.found(settings)
    lending = lender.choose(free_port(settings.host))
    console.print(f"[bold]The loop[/bold]: a lender of personal loans, state in {lender.folder}")
    story = Story(lending, lender, Timeline(console, ClockFile(lender.clock_file)), console)
    problem = None
    try:
        story.first_champion()
        story.live()
    except (LoopError, ServerError, TrafficError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "it was stopped"
    facts = {**story.facts, "fires": story.fires, "seconds": round(story.timeline.seconds)}
    wrong = [problem] if problem else missing(facts)
    facts |= {"everything_happened": not wrong, "missing": wrong}
    story.timeline.write(lender.timeline, facts)
    console.print(f"The timeline is in {lender.timeline}")
    if wrong:
        console.print(f"The loop did NOT close: {'; '.join(wrong)}", style="bold red", markup=False)
        return 1
    console.print(summary(facts), style="bold green", markup=False)
    return 0


def look_around(settings: Settings) -> int:
    """Run Dagster, MLflow, pages and service over the state of the last loop, until Ctrl-C; 1 if there was none."""
    lender = LoopLender(settings.home / "loop")
    if not lender.timeline.exists():
        Console(stderr=True, soft_wrap=True).print(f"No loop has ended in {lender.folder}. Run: make loop", style="red")
        return 1
    return run_stack(lender.choose(settings.port))


def missing(facts: dict[str, Any]) -> list[str]:
    """What should have happened by the facts of a story, and did not."""
    before = facts.get("champion_before")
    expected = {
        "drift was noticed": "drift_noticed" in facts,
        f"the drift sensor fired once, not {facts['fires']} times": facts["fires"] == 1,
        f"the experiment ramped 5, 25, 50, 100 %, not {facts.get('ramp')}": facts.get("ramp") == [0.05, 0.25, 0.5, 1.0],
        "the challenger became champion": facts.get("champion") == facts.get("challenger", "none") != before,
        "the harmful change was stopped": "stopped_by" in facts,
    }
    return [what for what, happened in expected.items() if not happened]


def summary(facts: dict[str, Any]) -> str:
    """The one line at the end."""
    ramp = "/".join(f"{weight:.0%}".rstrip("%") for weight in facts["ramp"])
    minutes, seconds = divmod(facts["seconds"], 60)
    return (
        f"THE LOOP CLOSED: drift from {facts['drift_began']} noticed on {facts['drift_noticed']}, sensor fired "
        f"{facts['fires']}x, challenger {facts['challenger'][:12]} trained, ramp {ramp} %, champion since "
        f"{facts['promoted_on']}, harmful change stopped by {facts['stopped_by']}, {minutes} min {seconds} s"
    )
