"""Calls about standing orders, as ``orders`` of both clients."""

from __future__ import annotations

from trtfarm.contract.order import DeletedOrderView, OrderList, OrderRequest, OrderView, RolloutReport
from trtfarm.sdk import asked
from trtfarm.sdk.calls import view
from trtfarm.sdk.flow import Flow
from trtfarm.sdk.running import AsyncRunner, Runner


def declare(request: OrderRequest) -> Flow[OrderView]:
    body = request.model_dump(mode="json", exclude_defaults=True)
    found = yield from view(OrderView, "POST", "/v1/orders", json=body)
    asked.same("order", request.name, found.name)
    asked.same(f"order {request.name} of model", request.model, found.model)
    return found


def page() -> Flow[OrderList]:
    return view(OrderList, "GET", "/v1/orders")


def get(order: str, *, check: bool = False) -> Flow[OrderView]:
    found = yield from view(OrderView, "GET", f"/v1/orders/{order}", params={"check": check})
    asked.named("order", order, found.order_id, found.name)
    return found


def delete(order: str) -> Flow[DeletedOrderView]:
    return view(DeletedOrderView, "DELETE", f"/v1/orders/{order}")


def report(order: str, *, runtime: str | None = None, against: str | None = None) -> Flow[RolloutReport]:
    given = {"runtime": runtime, "against": against}
    params = {name: value for name, value in given.items() if value is not None}
    return view(RolloutReport, "GET", f"/v1/orders/{order}/report", params=params)


class Orders:
    def __init__(self, runner: Runner) -> None:
        self._run = runner.run

    def declare(self, request: OrderRequest) -> OrderView:
        """Declared again under its name, it is the same order."""
        return self._run(declare(request))

    def list(self) -> OrderList:
        """Without their cells."""
        return self._run(page())

    def get(self, order: str, *, check: bool = False) -> OrderView:
        """With every cell; ``check`` looks for every plan's bytes in the store."""
        return self._run(get(order, check=check))

    def delete(self, order: str) -> DeletedOrderView:
        """Its plans stay; its jobs end, but for those that others have submitted as well."""
        return self._run(delete(order))

    def report(self, order: str, *, runtime: str | None = None, against: str | None = None) -> RolloutReport:
        """A new TensorRT version beside the one before."""
        return self._run(report(order, runtime=runtime, against=against))


class AsyncOrders:
    """As ``Orders``, for event loops."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._run = runner.run

    async def declare(self, request: OrderRequest) -> OrderView:
        return await self._run(declare(request))

    async def list(self) -> OrderList:
        return await self._run(page())

    async def get(self, order: str, *, check: bool = False) -> OrderView:
        return await self._run(get(order, check=check))

    async def delete(self, order: str) -> DeletedOrderView:
        return await self._run(delete(order))

    async def report(
        self, order: str, *, runtime: str | None = None, against: str | None = None
    ) -> RolloutReport:
        return await self._run(report(order, runtime=runtime, against=against))
