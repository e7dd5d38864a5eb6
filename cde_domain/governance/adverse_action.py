"""What the law of a jurisdiction wants every notice of adverse action to say besides the reasons.

Sources, as read for the rulebook: 12 CFR 1002.9(b)(1) and form C-1 of its appendix C (ECOA), FCRA section 615(a), GDPR
articles 15(1)(h), 22(3) and 77 with C-203/22, RBI/2006-07/280 and the grievance rules of RBI/2025-26/36, DPDP Act 2023
sections 11 and 12. The wording is ours where the law gives none; it is no legal advice.
"""

from dataclasses import dataclass

from cde_domain.application import ColumnSpec, columns_of
from cde_domain.portfolio import Portfolio


@dataclass(frozen=True)
class Statement:
    """One paragraph of a notice, with the law that asks for it."""

    law: str
    text: str


ECOA = (
    "The Federal Equal Credit Opportunity Act prohibits creditors from discriminating against credit applicants on the "
    "basis of race, color, religion, national origin, sex, marital status, age (provided the applicant has the "
    "capacity to enter into a binding contract); because all or part of the applicant's income derives from any public "
    "assistance program; or because the applicant has in good faith exercised any right under the Consumer Credit "
    "Protection Act. The Federal agency that administers compliance with this law concerning this creditor is {agency}."
)
FCRA = (
    "Our credit decision was based in whole or in part on information obtained in a report from the consumer reporting "
    "agency {bureau}. You have a right under the Fair Credit Reporting Act to know the information contained in your "
    "credit file at the consumer reporting agency. The reporting agency played no part in our decision and is unable "
    "to supply specific reasons why we have denied credit to you. You also have a right to a free copy of your report "
    "from the reporting agency, if you request it no later than 60 days after you receive this notice. In addition, if "
    "you find that any information contained in the report you receive is inaccurate or incomplete, you have the right "
    "to dispute the matter with the reporting agency."
)
GDPR_22 = (
    "You have the right to have a person look at your application, to express your point of view and to contest the "
    "decision."
)
GDPR_15 = (
    "You have the right to an explanation, in clear terms, of the procedure and the principles that were actually "
    "applied to your data to reach this decision, and to see and correct that data."
)
GDPR_77 = "You may complain to the data protection supervisory authority of the place where you live or work."
EU_DATABASE = (
    "A database was consulted for this decision: {bureau}. You may ask us for what it said of you, free of charge."
)
RBI_REASONS = "The main reasons for the rejection are given to you in writing, whatever the amount of the loan."
RBI_GRIEVANCE = (
    "If you have a complaint, write to our grievance redressal officer at {contact}. If it is rejected, or not settled "
    "within 30 days, you may complain to the Reserve Bank of India's Ombudsman at https://cms.rbi.org.in."
)
RBI_BUREAU = (
    "Information from a credit information company was used{named}. You may ask that company for your report, and have "
    "wrong or outdated information corrected."
)
DPDP = "You may ask us which of your personal data we process, and to correct, complete or erase it as the law allows."


def statements_of(portfolio: Portfolio) -> tuple[Statement, ...]:
    """The statements that a notice of this portfolio carries, in the order of the page."""
    creditor, bureau = portfolio.creditor, uses_bureau(portfolio)
    if portfolio.jurisdiction == "US":
        agency = creditor.supervisor or "not named by this creditor"
        found = [Statement("ECOA, 12 CFR 1002.9(b)(1)", ECOA.format(agency=agency))]
        named = creditor.bureau or "not named by this creditor"
        return (*found, Statement("FCRA section 615(a)", FCRA.format(bureau=named))) if bureau else tuple(found)
    if portfolio.jurisdiction == "EU":
        found = [
            Statement("GDPR article 22(3)", GDPR_22),
            Statement("GDPR article 15(1)(h), C-203/22", GDPR_15),
            Statement("GDPR article 77", GDPR_77),
        ]
        database = Statement(
            "Directive (EU) 2023/2225 on credit agreements for consumers", EU_DATABASE.format(bureau=creditor.bureau)
        )
        return (*found, database) if bureau and creditor.bureau else tuple(found)
    found = [
        Statement("RBI/2006-07/280, fair practices code", RBI_REASONS),
        Statement("RBI/2025-26/36, grievance redressal", RBI_GRIEVANCE.format(contact=creditor.contact)),
    ]
    if bureau:
        named = f": {creditor.bureau}" if creditor.bureau else ""
        found.append(Statement("Credit Information Companies Act 2005", RBI_BUREAU.format(named=named)))
    return (*found, Statement("DPDP Act 2023, sections 11 and 12", DPDP))


def missing_from(portfolio: Portfolio) -> tuple[str, ...]:
    """What the lender must still say before a notice of this portfolio is complete."""
    creditor, bureau = portfolio.creditor, uses_bureau(portfolio)
    missing = []
    if portfolio.jurisdiction == "US" and not creditor.supervisor:
        missing.append("creditor.supervisor: the federal agency with its address (12 CFR 1002.9(b)(1))")
    if portfolio.jurisdiction in ("US", "EU") and bureau and not creditor.bureau:
        missing.append("creditor.bureau: name, address and telephone number of the agency whose report was used")
    if portfolio.jurisdiction == "US" and bureau:
        missing.append("the bureau's score with its range, date and key factors, if one was used (FCRA 615(a)(2))")
    return tuple(missing)


def uses_bureau(portfolio: Portfolio) -> bool:
    """Whether an application of this portfolio holds anything from a credit bureau."""

    def from_bureau(specs: tuple[ColumnSpec, ...]) -> bool:
        return any("bureau" in spec.source or from_bureau(spec.items) for spec in specs)

    return from_bureau(columns_of(portfolio.application))
