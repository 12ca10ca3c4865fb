export { reason, violations } from "./details.js";
export { Session } from "./session.js";
