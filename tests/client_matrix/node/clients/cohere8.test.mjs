import * as cohere from "cohere8";
import { cohereChecks } from "./cohere.mjs";

cohereChecks("cohere8", cohere);
