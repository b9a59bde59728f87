"""Coverage: which of the wanted cells have a plan, by campaign and by model."""

from __future__ import annotations

from trtfarm.contract.campaign import CampaignCoverage, CellView, Coverage, CoverageView, ModelCoverage
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName
from trtfarm_api.farm import Farm
from trtfarm_api.services.campaigns import checked
from trtfarm_db.repositories.campaigns import CampaignRepository
from trtfarm_db.repositories.names import NameRepository


def coverage(
    farm: Farm, *, campaign: str | None, model: Digest | ModelName | None, check: bool
) -> CoverageView:
    """Of one campaign or all, of one model or all; ``check`` looks for every plan's bytes in the store.

    Raises:
        NotFoundError: no such campaign, or no such name.
    """
    with farm.database.transaction() as connection:
        campaigns = CampaignRepository(connection)
        digest = NameRepository(connection).digest(model) if model else None
        if campaign is not None:
            row = campaigns.find(campaign)
            names = {row.campaign_id: row.name}
            found = [(row.campaign_id, cell) for cell in campaigns.cells(row.campaign_id)]
            found = [pair for pair in found if digest in {None, pair[1].model}]
        else:
            found = campaigns.every_cell(digest)
            names = campaigns.names({campaign_id for campaign_id, _ in found})
    if check:
        cells = checked(farm, [cell for _, cell in found])
        found = [(campaign_id, cell) for (campaign_id, _), cell in zip(found, cells, strict=True)]
    unique = {cell.build_key: cell for _, cell in found}
    return CoverageView(
        coverage=Coverage.of(cell.state for cell in unique.values()),
        campaigns=tuple(
            CampaignCoverage(
                campaign_id=campaign_id,
                name=name,
                coverage=Coverage.of(cell.state for each, cell in found if each == campaign_id),
            )
            for campaign_id, name in sorted(names.items(), reverse=True)
        ),
        models=_models([cell for _, cell in found]),
    )


def _models(cells: list[CellView]) -> tuple[ModelCoverage, ...]:
    by_model: dict[Digest, dict[str, CellView]] = {}
    names: dict[Digest, dict[str, None]] = {}
    for cell in cells:
        by_model.setdefault(cell.model, {})[cell.build_key] = cell
        names.setdefault(cell.model, {})[cell.name] = None
    return tuple(
        ModelCoverage(
            model=digest,
            names=tuple(names[digest]),
            coverage=Coverage.of(cell.state for cell in unique.values()),
            cells=tuple(unique.values()),
        )
        for digest, unique in by_model.items()
    )
