"use strict";

// Shows the server's own OpenAPI document. Text is only ever set as text.

const METHODS = ["get", "post", "put", "patch", "delete"];

function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
}

function resolve(doc, schema) {
    const name = schema.$ref && schema.$ref.replace("#/components/schemas/", "");
    return name ? [name, doc.components.schemas[name]] : [null, schema];
}

function table(heading, rows) {
    if (rows.length === 0) return null;
    const lines = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
    return make("section", {}, make("h3", {}, heading), make("table", {}, make("tbody", {}, ...lines)));
}

function code(text) {
    return make("code", {}, text);
}

function shape(doc, heading, schema) {
    const items = schema.properties && schema.properties.items && schema.properties.items.items;
    const [name, resolved] = resolve(doc, items || schema);
    const section = make("section", {}, make("h3", {}, heading + (name ? `: ${items ? "list of " : ""}${name}` : "")));
    if (resolved.description) section.append(make("p", {}, resolved.description));
    const example = resolved.examples && resolved.examples[0];
    if (example !== undefined) section.append(make("pre", {}, JSON.stringify(example, null, 2)));
    const fold = make("details", {}, make("summary", {}, "Schema"));
    fold.append(make("div", { class: "body" }, make("pre", {}, JSON.stringify(resolved, null, 2))));
    section.append(fold);
    return section;
}

function operation(doc, path, method, item) {
    const what = item[method];
    const needed = what.security.map((one) => one.key).filter(Boolean).flat();
    const scope = what.security.length === 0 ? "no key" : needed.join(" ") || "any key";
    const body = make("div", { class: "body" });
    if (what.description) body.append(make("p", {}, what.description));
    if (what["x-picloud-one-app"] === false) body.append(make("p", {}, "A key of one app is not enough."));
    const parameters = [...(item.parameters || []), ...(what.parameters || [])];
    const rows = parameters.map((one) => [code(one.name), one.in, one.description || ""]);
    const parts = [table("Parameters", rows)];
    const sent = what.requestBody && what.requestBody.content["application/json"];
    if (sent) parts.push(shape(doc, "Body", sent.schema));
    const answers = Object.entries(what.responses).map(([status, answer]) => [code(status), answer.description]);
    parts.push(table("Answers", answers));
    for (const [status, answer] of Object.entries(what.responses)) {
        const given = answer.content && answer.content["application/json"];
        if (given) parts.push(shape(doc, `Answer ${status}`, given.schema));
    }
    body.append(...parts.filter((part) => part !== null));
    return make(
        "details",
        { id: what.operationId },
        make(
            "summary",
            {},
            make("span", { class: "method" }, method.toUpperCase()),
            make("code", { class: "path" }, path),
            make("span", { class: "what" }, what.summary),
            make("span", { class: "scope" }, scope),
        ),
        body,
    );
}

function show(doc) {
    document.getElementById("about").textContent = `${doc.info.description} Version ${doc.info.version}.`;
    const main = document.getElementById("operations");
    main.replaceChildren();
    for (const tag of doc.tags) {
        const section = make("section", { class: "tag" }, make("h2", {}, tag.name), make("p", {}, tag.description));
        for (const [path, item] of Object.entries(doc.paths)) {
            for (const method of METHODS) {
                if (item[method] && item[method].tags[0] === tag.name) {
                    section.append(operation(doc, path, method, item));
                }
            }
        }
        main.append(section);
    }
    const linked = location.hash && document.getElementById(location.hash.slice(1));
    if (linked) {
        linked.open = true;
        linked.scrollIntoView();
    }
}

function filter(words) {
    const wanted = words.trim().toLowerCase();
    for (const section of document.querySelectorAll("section.tag")) {
        let shown = 0;
        for (const one of section.querySelectorAll(":scope > details")) {
            const text = one.querySelector("summary").textContent.toLowerCase();
            one.hidden = !text.includes(wanted);
            if (!one.hidden) shown += 1;
        }
        section.hidden = shown === 0;
    }
}

async function start() {
    const main = document.getElementById("operations");
    try {
        const answer = await fetch("/api/v1/openapi.json");
        if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
        show(await answer.json());
    } catch (error) {
        main.replaceChildren(make("p", { role: "alert" }, `The document could not be loaded: ${error.message}`));
        return;
    }
    const search = document.getElementById("search");
    search.addEventListener("input", () => filter(search.value));
}

start();
