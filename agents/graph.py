"""The wiring of a run as a LangGraph graph, and the same wiring as a plain loop.

Both call the same nodes; the run directory, not a checkpoint, says how far a run is. The checkpointer
lives in memory and only carries the interrupt that waits for a person's approval.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl, Runtime
from langgraph.types import RetryPolicy, interrupt

from agents import control, decisions, final, merging, nodes, prepare, reporting, teach
from agents.loop import Loop, State
from curriculum.errors import StopRequested, StudentError, TrainingError

Node = Callable[[Loop, State], State]
NODES: dict[str, Node] = {
    "prepare": prepare.prepare,
    "catalogue": nodes.catalogue,
    "label": nodes.label,
    "evaluate": nodes.evaluate,
    "diagnose": nodes.diagnose,
    "profile": nodes.profile,
    "plan": decisions.plan,
    "approve": decisions.approve,
    "build": teach.build,
    "train": teach.train,
    "merge": merging.merge,
    "gate": decisions.gate,
    "control": control.control,
    "report": reporting.report,
    "finish": final.finish,
}
STEPS_PER_ROUND = len(NODES)
"""More graph steps than a round can take; bounds the recursion."""


def after_profile(loop: Loop, state: State) -> Literal["plan", "gate"]:
    """Round 0 only measures: the base gets its baseline on the gate, and nothing is taught."""
    return "plan" if state["round"] else "gate"


def after_approve(loop: Loop, state: State) -> Literal["build", "report"]:
    """A plan may be to stop."""
    return "build" if state["action"] == "train" else "report"


def after_report(loop: Loop, state: State) -> Literal["evaluate", "finish"]:
    """The next round follows by itself until the plan stops or the configured rounds are done."""
    return "finish" if state.get("action") == "stop" or state["round"] > loop.config.rounds else "evaluate"


def build_graph() -> CompiledStateGraph[State, Loop, State, State]:
    """The graph of a run. Give it the loop as context and an empty state."""
    graph = StateGraph(State, context_schema=Loop)
    retry = RetryPolicy(max_attempts=2, initial_interval=1.0, retry_on=_is_transient)
    for name, node in NODES.items():
        graph.add_node(name, partial(_run_node, node), retry_policy=retry)
    straight = ["prepare", "catalogue", "label", "evaluate", "diagnose", "profile"]
    for before, after in zip([START, *straight[:-1]], straight, strict=True):
        graph.add_edge(before, after)
    graph.add_conditional_edges("profile", partial(_route, after_profile), ["plan", "gate"])
    graph.add_edge("plan", "approve")
    graph.add_conditional_edges("approve", partial(_route, after_approve), ["build", "report"])
    for before, after in [
        ("build", "train"),
        ("train", "merge"),
        ("merge", "gate"),
        ("gate", "control"),
        ("control", "report"),
        ("finish", END),
    ]:
        graph.add_edge(before, after)
    graph.add_conditional_edges("report", partial(_route, after_report), ["evaluate", "finish"])
    return graph.compile(checkpointer=InMemorySaver())


def run_graph(loop: Loop, control: RunControl) -> State:
    """Runs, or resumes, a run from wherever its directory says it is; returns the last state.

    A state with `waiting_for` set means that a person has to approve a plan before the run can go on.

    Raises:
        StopRequested: `control` was told to drain; everything finished so far is on disk.
    """
    config: RunnableConfig = {
        "configurable": {"thread_id": loop.name},
        "recursion_limit": STEPS_PER_ROUND * (loop.config.rounds + 2),
    }
    try:
        result = build_graph().invoke({}, config, context=loop, control=control, durability="sync")
    except GraphDrained:
        raise StopRequested(loop.stop_message) from None
    if "__interrupt__" in result:
        result["waiting_for"] = result.pop("__interrupt__")[0].value
    return cast(State, result)


def run_plain(loop: Loop) -> State:
    """The same run as a plain loop over the same nodes, without LangGraph."""
    state = State()

    def step(*names: str) -> None:
        for name in names:
            state.update(NODES[name](loop, state))

    step("prepare", "catalogue")
    if state["waiting_for"]:
        return state
    step("label")
    while True:
        step("evaluate", "diagnose", "profile")
        if after_profile(loop, state) == "gate":
            step("gate", "control", "report")
        else:
            step("plan", "approve")
            if state["waiting_for"]:
                return state
            taught = ["build", "train", "merge", "gate", "control"]
            step(*(taught if after_approve(loop, state) == "build" else []), "report")
        if after_report(loop, state) == "finish":
            step("finish")
            return state


def _run_node(node: Node, state: State, runtime: Runtime[Loop]) -> State:
    update = node(runtime.context, state)
    if update.get("waiting_for"):
        interrupt(update["waiting_for"])
    return update


def _route(choose: Callable[[Loop, State], str], state: State, runtime: Runtime[Loop]) -> str:
    return choose(runtime.context, state)


def _is_transient(error: Exception) -> bool:
    """A worker that died may live the second time; a loss that diverged will diverge again."""
    return isinstance(error, StudentError) and not isinstance(error, TrainingError)
