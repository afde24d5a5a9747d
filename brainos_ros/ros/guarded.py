"""A lifecycle node that no callback can end, and whose transitions destroy what they created."""

import math
import time
import traceback
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.timer import Timer

LONGEST_SENTENCE = 400
SPURIOUS = 0.25  # periods since the last call: a timer that comes sooner is not due


class GuardedNode(LifecycleNode):
    """Every callback is guarded: an exception becomes a log line with its traceback.

    What is created while `_scope` is a list is destroyed by what is appended to that.
    """

    def __init__(self, name: str, **node_arguments: Any) -> None:
        self._scope: list[Callable[[], None]] | None = None
        self._failures = 0
        self.last_failure = ""
        """What went wrong last, one sentence; empty if nothing did. The heartbeat carries it."""
        super().__init__(name, **node_arguments)
        change_state = self._service_change_state
        change_state.callback = self._refusing_wrong_transitions(change_state.callback)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)

    def keep_failure(self, sentence: str) -> None:
        """Let the heartbeat and the diagnostics carry it, as valid UTF-8 and not too long."""
        self.last_failure = sentence[:LONGEST_SENTENCE].encode(errors="replace").decode()

    def note_failure(self, sentence: str) -> None:
        """Log the exception being handled with its traceback and show it in the diagnostics."""
        self._failures += 1
        self.keep_failure(sentence)
        self.get_logger().error(f"{sentence}\n{traceback.format_exc()}", throttle_duration_sec=0.1)

    def every(self, period_s: float, work: Callable[[], None]) -> Timer:
        """Call `work` every `period_s` seconds on the steady clock.

        After a long callback the events executor calls a timer once for each time that a timer was
        added meanwhile, and rcl puts its next call off by a period for each. Such a call is left
        out and the timer set anew; else an activation would cost up to half a second of heartbeats.
        """
        called = -math.inf

        def call() -> None:
            nonlocal called
            now = time.monotonic()
            if now - called < SPURIOUS * period_s:
                timer.reset()
                return
            called = now
            work()

        timer = self.create_timer(period_s, call, clock=self._steady)
        return timer

    def create_service(self, srv_type: Any, srv_name: str, callback: Any, **kwargs: Any) -> Any:
        guarded = self._guarded(callback, srv_name)
        service = super().create_service(srv_type, srv_name, guarded, **kwargs)
        return self._owned(service, self.destroy_service)

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Any, qos_profile: Any, **kwargs: Any
    ) -> Any:
        guarded = self._guarded(callback, topic)
        made = super().create_subscription(msg_type, topic, guarded, qos_profile, **kwargs)
        return self._owned(made, self.destroy_subscription)

    def create_timer(
        self, timer_period_sec: float, callback: Any, *args: Any, **kwargs: Any
    ) -> Any:
        guarded = self._guarded(callback, "a timer")
        made = super().create_timer(timer_period_sec, guarded, *args, **kwargs)
        return self._owned(made, self.destroy_timer)

    def create_publisher(self, *args: Any, **kwargs: Any) -> Any:
        return self._owned(super().create_publisher(*args, **kwargs), self.destroy_publisher)

    def create_client(self, *args: Any, **kwargs: Any) -> Any:
        return self._owned(super().create_client(*args, **kwargs), self.destroy_client)

    def own(self, thing: Any) -> Any:
        """Let the opposite transition destroy `thing` (an action server or client)."""
        return self._owned(thing, lambda made: made.destroy())

    def _owned(self, thing: Any, destroy: Callable[[Any], object]) -> Any:
        if self._scope is not None:
            self._scope.append(lambda: destroy(thing))
        return thing

    def _guarded(self, callback: Callable[..., Any], name: str) -> Callable[..., Any]:
        def guarded(*args: Any) -> Any:
            try:
                return callback(*args)
            except Exception as error:
                self.note_failure(f"the callback of {name} failed: {error!r}")
                return args[1] if len(args) == 2 else None

        async def guarded_async(*args: Any) -> Any:
            try:
                return await callback(*args)
            except Exception as error:
                self.note_failure(f"the callback of {name} failed: {error!r}")

        return guarded_async if iscoroutinefunction(callback) else guarded

    def _refusing_wrong_transitions(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """rclpy lets a transition that does not exist here end the process."""

        def change_state(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:
                asked = request.transition.label or request.transition.id
                self.get_logger().warning(
                    f"transition {asked} refused in state {self._state_machine.current_state[1]}: "
                    f"{error}",
                    throttle_duration_sec=0.1,
                )
                response.success = False
                return response

        return change_state

    def destroy_node(self) -> None:
        """As rclpy, and what that leaves to the garbage collector, with the DDS participant."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()
