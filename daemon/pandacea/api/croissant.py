"""A product's mock files as Croissant 1.0 (JSON-LD, MLCommons): what search engines and loaders of data sets read.

It describes the mock files and says so; the private table is not a file that anybody can load.
"""

from __future__ import annotations

from typing import Final

from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

CONFORMS_TO: Final = "http://mlcommons.org/croissant/1.0"
_CONTEXT: Final[JsonObject] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant_document(document: JsonMapping, base: str) -> JsonObject:
    """Return the JSON-LD of one product. `document`: as signed; `base`: the product's URL without a slash at its end."""
    assets = [asset for asset in document["assets"] if asset.get("mock")]
    about = document["description"] or f"Tables of the product {document['product_id']}."
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": f"{document['name']} (mock)",
        "description": f"{about} These files are MOCK rows, made from a description of private tables that are not published.",
        "conformsTo": CONFORMS_TO,
        "url": base,
        "keywords": list(document["keywords"]),
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [_file(asset, base) for asset in assets],
        "recordSet": [_records(asset) for asset in assets],
    }


def _file(asset: JsonMapping, base: str) -> JsonObject:
    return {
        "@type": "cr:FileObject",
        "@id": f"{asset['asset_id']}_mock.csv",
        "name": f"{asset['asset_id']}_mock.csv",
        "description": f"{asset['mock']['rows']} mock rows of {asset['asset_id']}.",
        "contentUrl": f"{base}/assets/{asset['asset_id']}/mock.csv",
        "encodingFormat": "text/csv",
        "sha256": asset["mock"]["sha256"],
    }


def _records(asset: JsonMapping) -> JsonObject:
    table = f"{asset['asset_id']}_mock"
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": asset.get("description") or f"Mock rows of {asset['asset_id']}.",
        "field": [_field(number, column, table) for number, column in enumerate(asset["schema"], 1)],
    }


def _field(number: int, column: JsonMapping, table: str) -> JsonObject:
    words = [column.get("description", ""), f"unit: {column['unit']}" if column.get("unit") else ""]
    return {
        "@type": "cr:Field",
        # A column may be called anything; an identifier may not.
        "@id": f"{table}/column-{number}",
        "name": f"{table}/column-{number}",
        "description": "; ".join([str(column["name"]), *(word for word in words if word)]),
        "dataType": _data_type(str(column["type"])),
        "source": {"fileObject": {"@id": f"{table}.csv"}, "extract": {"column": column["name"]}},
    }


def _data_type(kind: str) -> str:
    kind = kind.removeprefix("category[")
    if kind.startswith(("int", "uint")):
        return "sc:Integer"
    if kind.startswith(("float", "decimal")):
        return "sc:Float"
    if kind.startswith("bool"):
        return "sc:Boolean"
    if kind.startswith(("date", "timestamp")):
        return "sc:Date"
    return "sc:Text"
