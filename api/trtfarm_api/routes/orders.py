"""Standing orders."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from trtfarm.contract.jobs import Scope
from trtfarm.contract.order import DeletedOrderView, OrderList, OrderRequest, OrderView, RolloutReport
from trtfarm.contract.target import Runtime
from trtfarm_api.auth import Submitter, scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import FarmDep
from trtfarm_api.services import OrdersDep
from trtfarm_api.services.rollout import report

router = APIRouter(prefix="/v1/orders", tags=["orders"], route_class=DocumentRoute)
Name = Annotated[str, Path(max_length=100, description="Name or id.")]
Version = Annotated[str | None, Query(max_length=80)]


@router.post("", status_code=201)
def declare_order(
    request: OrderRequest, principal: Submitter, orders: OrdersDep, response: Response
) -> OrderView:
    """201: a new order. 200: the order of that name is this one now. What is missing is submitted at once."""
    view, new = orders.declare(request, principal.name)
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/v1/orders/{view.name}"
    return view


@router.get("", dependencies=[scoped(Scope.READ)])
def list_orders(orders: OrdersDep) -> OrderList:
    """In alphabetical order, without their cells."""
    return orders.all()


@router.get("/{order}", dependencies=[scoped(Scope.READ)])
def get_order(
    order: Name,
    orders: OrdersDep,
    check: Annotated[bool, Query(description="Look for every plan's bytes in the store.")] = False,
) -> OrderView:
    """With every cell."""
    return orders.get(order, check=check)


@router.delete("/{order}")
def delete_order(order: Name, principal: Submitter, orders: OrdersDep) -> DeletedOrderView:
    """Its plans stay; its jobs end, but for those that others have submitted as well."""
    return orders.remove(order, principal)


@router.get("/{order}/report", dependencies=[scoped(Scope.READ)])
def get_report(
    order: Name, farm: FarmDep, orders: OrdersDep, runtime: Version = None, against: Version = None
) -> RolloutReport:
    """Plans of the newest TensorRT version, or of `runtime`, beside those of the one before, or `against`."""
    return report(
        farm,
        orders.surveyor,
        order,
        runtime=Runtime.parse(runtime) if runtime else None,
        against=Runtime.parse(against) if against else None,
    )
