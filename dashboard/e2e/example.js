// The repository that the tests deploy: small, with one of everything.
export const SHOP = `name: shop
description: Sells tea, or tries to.
env:
  CURRENCY: CHF
routes:
  - path: /
    script: scripts/price.rhai
  - path: /orders/{id}
    methods: [GET, POST]
    script: scripts/order.rhai
triggers:
  - name: nightly
    kind: cron
    script: scripts/tidy.rhai
    schedule: "0 30 2 * * *"
    timezone: Europe/Zurich
  - name: ordered
    kind: kv
    collection: orders
    script: scripts/fail.rhai
    retry: {attempts: 2, backoff: 1s}
`;

export const FILES = {
	'apps/shop/app.yaml': SHOP,
	'apps/shop/scripts/price.rhai': `// What the shop asks for.
fn price(item) {
    item.price * 1.077
}
let item = #{ name: "Tea" };
log::info("a visitor", #{ item: item.name });
price(item)
`,
	'apps/shop/scripts/order.rhai': `kv::set("orders", ctx.request.params.id, #{ at: time::now() });
#{ ordered: ctx.request.params.id }
`,
	'apps/shop/scripts/fail.rhai': 'throw "the till is closed";\n',
	'apps/shop/scripts/tidy.rhai': 'log::info(`tidied ${1 + 1} shelves`);\n',
	'apps/shop/modules/money.rhai': 'fn round(x) { x }\n',
	'apps/hello/app.yaml': `name: hello
description: The smallest app there is.
routes:
  - path: /
    script: scripts/hello.rhai
`,
	'apps/hello/scripts/hello.rhai': '#{ hello: "world" }\n'
};
